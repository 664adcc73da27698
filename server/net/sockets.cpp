// SPDX-License-Identifier: BSD-2-Clause
#include "net/sockets.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/ip/address_v4.hpp>
#include <asio/ip/address_v6.hpp>
#include <cerrno>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/os.h"

namespace echo_server {

namespace {

// Returns false at the end of the dump.
bool receive_some(const Fd& netlink, std::vector<char>& buffer, const std::function<void(const nlmsghdr*)>& visit) {
    const auto size = ::recv(netlink.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) return true;
    if (size < 0) fail("netlink");
    auto left = static_cast<unsigned>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            // The last message says whether the dump is complete.
            const auto error = header->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) ? read_as<int>(NLMSG_DATA(header)) : 0;
            if (error < 0) fail("netlink", -error);
            return false;
        }
        if (header->nlmsg_type == NLMSG_ERROR)
            fail("netlink", -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error);
        visit(header);
    }
    return true;
}

}  // namespace

void netlink_dump(int protocol, const nlmsghdr& request, const std::function<void(const nlmsghdr*)>& visit) {
    const Fd netlink(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol));
    if (!netlink || ::send(netlink.get(), &request, request.nlmsg_len, 0) < 0) fail("netlink");
    // The kernel's largest piece; on the heap, because a thread's stack may be small.
    std::vector<char> buffer(32768);
    while (receive_some(netlink, buffer, visit)) continue;
}

using asio::ip::tcp;

namespace {

struct Request {
    nlmsghdr header;
    inet_diag_req_v2 body;
};

template <typename Address>
asio::ip::address address_of(const __be32 (&words)[4]) {
    return Address(read_as<typename Address::bytes_type>(words));
}

void read_attribute(ListeningSocket& socket, const rtattr* attribute) {
    const void* data = RTA_DATA(attribute);
    const std::size_t size = RTA_PAYLOAD(attribute);
    if (attribute->rta_type == INET_DIAG_SKV6ONLY && size >= sizeof(__u8))
        socket.both_families = read_as<__u8>(data) == 0;
    if (attribute->rta_type == INET_DIAG_SKMEMINFO && size >= (SK_MEMINFO_DROPS + 1) * sizeof(__u32))
        socket.dropped = read_as<std::array<__u32, SK_MEMINFO_DROPS + 1>>(data)[SK_MEMINFO_DROPS];
}

std::uint64_t cookie_of(const inet_diag_msg& message) {
    const auto& halves = message.id.idiag_cookie;
    return halves[0] | static_cast<std::uint64_t>(halves[1]) << 32U;
}

ListeningSocket read_socket(const nlmsghdr* header) {
    const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
    const auto& id = message->id;
    const auto address = message->idiag_family == AF_INET ? address_of<asio::ip::address_v4>(id.idiag_src)
                                                          : address_of<asio::ip::address_v6>(id.idiag_src);
    ListeningSocket socket;
    socket.local = tcp::endpoint(address, ntohs(id.idiag_sport));
    socket.cookie = cookie_of(*message);
    socket.inode = message->idiag_inode;
    socket.waiting = message->idiag_rqueue;
    socket.backlog = message->idiag_wqueue;
    auto left = header->nlmsg_len - NLMSG_LENGTH(sizeof(*message));
    for (const auto* attribute = reinterpret_cast<const rtattr*>(message + 1); RTA_OK(attribute, left);
         attribute = RTA_NEXT(attribute, left))
        read_attribute(socket, attribute);
    return socket;
}

std::string_view hint_of_diag(int error) {
    switch (error) {
        case ENOENT: return "the kernel has it in the module tcp_diag: 'modprobe tcp_diag' loads it";
        case EAFNOSUPPORT: return "let RestrictAddressFamilies= of the systemd unit have AF_NETLINK";
        default: return "";
    }
}

// Calls `visit` with each TCP socket in one of `states`, which has a bit for each state.
void for_each_socket(unsigned states, const std::function<void(const nlmsghdr*)>& visit) {
    for (const int family : {AF_INET, AF_INET6}) {
        Request request{};
        request.header.nlmsg_len = sizeof(request);
        request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
        request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        request.body.sdiag_family = static_cast<__u8>(family);
        request.body.sdiag_protocol = IPPROTO_TCP;
        request.body.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1U);
        request.body.idiag_states = states;
        try {
            netlink_dump(NETLINK_SOCK_DIAG, request.header, [&](const nlmsghdr* header) {
                if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY) visit(header);
            });
        } catch (const std::system_error& error) {
            const int code = error.code().value();
            fail("asking the kernel for listening sockets (sock_diag)", code, hint_of_diag(code));
        }
    }
}

}  // namespace

std::vector<ListeningSocket> listening_sockets() {
    std::vector<ListeningSocket> sockets;
    for_each_socket(1U << TCP_LISTEN, [&](const nlmsghdr* header) { sockets.push_back(read_socket(header)); });
    return sockets;
}

bool BegunHandshakes::any_left() {
    std::vector<std::uint64_t> left;
    for_each_socket(1U << TCP_SYN_RECV, [&](const nlmsghdr* header) {
        const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
        const auto cookie = cookie_of(*message);
        if (cookies_ ? std::binary_search(cookies_->begin(), cookies_->end(), cookie)
                     : ports_.contains(ntohs(message->id.idiag_sport)))
            left.push_back(cookie);
    });
    std::ranges::sort(left);
    cookies_ = std::move(left);
    return !cookies_->empty();
}

namespace {

// The contents of the attribute `type`, among attributes of `size` bytes that begin at `first`.
std::string_view find(const rtattr* first, std::size_t size, unsigned short type) {
    auto left = static_cast<int>(size);
    for (const auto* one = first; RTA_OK(one, left); one = RTA_NEXT(one, left))
        if (one->rta_type == type) return {static_cast<const char*>(RTA_DATA(one)), RTA_PAYLOAD(one)};
    return {};
}

template <typename Address>
Address address_in(std::string_view data) {
    typename Address::bytes_type bytes{};
    data.copy(reinterpret_cast<char*>(bytes.data()), bytes.size());
    return Address(bytes);
}

template <typename Body>
struct RoutesRequest {
    nlmsghdr header;
    Body body;
};

// Calls `visit` with each message of the answer. `type` is RTM_GETLINK, say.
template <typename Body>
void dump(__u16 type, const Body& body, const std::function<void(const nlmsghdr*)>& visit) {
    RoutesRequest<Body> request{.header = {}, .body = body};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    netlink_dump(NETLINK_ROUTE, request.header, visit);
}

// The destination of a message RTM_NEWROUTE, if its route is of type local. The route to a subnet's broadcast address
// is of another type.
std::optional<AddressPrefix> local_destination_in(const nlmsghdr* message) {
    constexpr std::size_t size_before = NLMSG_LENGTH(sizeof(rtmsg));
    if (message->nlmsg_type != RTM_NEWROUTE || message->nlmsg_len < size_before) return {};
    const auto route = read_as<rtmsg>(NLMSG_DATA(message));
    if (route.rtm_type != RTN_LOCAL) return {};
    const auto* first = RTM_RTA(static_cast<const rtmsg*>(NLMSG_DATA(message)));
    const auto bytes = find(first, message->nlmsg_len - size_before, RTA_DST);  // none for a default route
    if (route.rtm_family == AF_INET6) return AddressPrefix{address_in<asio::ip::address_v6>(bytes), route.rtm_dst_len};
    return AddressPrefix{address_in<asio::ip::address_v4>(bytes), route.rtm_dst_len};
}

bool overlap(const AddressPrefix& a, const AddressPrefix& b) { return a.contains(b.address) || b.contains(a.address); }

}  // namespace

std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes) {
    if (prefixes.empty()) return {};
    try {
        for (const int family : {AF_INET, AF_INET6}) {
            rtmsg wanted{};
            wanted.rtm_family = static_cast<unsigned char>(family);
            dump(RTM_GETROUTE, wanted, [&](const nlmsghdr* message) {
                const auto local = local_destination_in(message);
                if (local) std::erase_if(prefixes, [&](const auto& prefix) { return overlap(*local, prefix); });
            });
        }
    } catch (const std::system_error&) {
        return {};  // a missing warning is no reason to fail
    }
    return prefixes;
}

}  // namespace echo_server
