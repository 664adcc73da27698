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
#include <cerrno>
#include <functional>
#include <string_view>
#include <system_error>

#include "base/fd.h"
#include "base/os.h"

namespace echo_server {

namespace {

using Visit = std::function<void(const nlmsghdr*)>;

constexpr std::array<unsigned char, 2> families{AF_INET, AF_INET6};

// Returns false at the end of the dump.
bool receive_some(const Fd& netlink, std::vector<char>& buffer, const Visit& visit) {
    const auto size = ::recv(netlink.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) return true;
    if (size < 0) fail("netlink");
    auto left = static_cast<unsigned>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
        // Both begin with an error; the last message says by it whether the dump is complete.
        const bool done = header->nlmsg_type == NLMSG_DONE;
        const int error = done || header->nlmsg_type == NLMSG_ERROR ? *static_cast<const int*>(NLMSG_DATA(header)) : 0;
        if (error != 0) fail("netlink", -error);
        if (done) return false;
        visit(header);
    }
    return true;
}

// Asks the kernel in the network namespace of the calling thread, and calls `visit` with each message of the answer
// (netlink(7)). Throws std::system_error.
template <typename Body>
void dump(int protocol, __u16 type, const Body& body, const Visit& visit) {
    struct {
        nlmsghdr header;
        Body body;
    } request{.header = {}, .body = body};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    const Fd netlink(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol));
    if (!netlink || ::send(netlink.get(), &request, sizeof(request), 0) < 0) fail("netlink");
    std::vector<char> buffer(32768);  // the kernel's largest piece
    while (receive_some(netlink, buffer, visit)) continue;
}

// The contents of the attribute `type` of a message whose body is a Body; "" if it has none.
template <typename Body>
std::string_view attribute(const nlmsghdr* header, unsigned short type) {
    auto left = static_cast<int>(header->nlmsg_len - NLMSG_SPACE(sizeof(Body)));
    const auto* start = static_cast<const char*>(NLMSG_DATA(header)) + NLMSG_ALIGN(sizeof(Body));
    for (const auto* one = reinterpret_cast<const rtattr*>(start); RTA_OK(one, left); one = RTA_NEXT(one, left))
        if (one->rta_type == type) return {static_cast<const char*>(RTA_DATA(one)), RTA_PAYLOAD(one)};
    return {};
}

// Zero where `bytes` are too few.
template <typename T>
T read_as(std::string_view bytes) {
    T value{};
    bytes.copy(reinterpret_cast<char*>(&value), sizeof(value));
    return value;
}

asio::ip::address address_of(int family, std::string_view bytes) {
    if (family == AF_INET6) return asio::ip::address_v6(read_as<asio::ip::address_v6::bytes_type>(bytes));
    return asio::ip::address_v4(read_as<asio::ip::address_v4::bytes_type>(bytes));
}

ListeningSocket read_socket(const nlmsghdr* header) {
    const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
    const auto& source = message->id.idiag_src;
    const auto& cookie = message->id.idiag_cookie;
    const auto v6_alone = attribute<inet_diag_msg>(header, INET_DIAG_SKV6ONLY);
    const auto memory = attribute<inet_diag_msg>(header, INET_DIAG_SKMEMINFO);
    return {
        .local = {address_of(message->idiag_family, {reinterpret_cast<const char*>(source), sizeof(source)}),
                  ntohs(message->id.idiag_sport)},
        .both_families = !v6_alone.empty() && v6_alone.front() == 0,
        .cookie = cookie[0] | static_cast<std::uint64_t>(cookie[1]) << 32U,
        .inode = message->idiag_inode,
        .waiting = message->idiag_rqueue,
        .backlog = message->idiag_wqueue,
        .dropped = read_as<std::array<__u32, SK_MEMINFO_VARS>>(memory)[SK_MEMINFO_DROPS],
    };
}

std::string_view hint_of_diag(int error) {
    switch (error) {
        case ENOENT: return "the kernel has it in the module tcp_diag: 'modprobe tcp_diag' loads it";
        case EAFNOSUPPORT: return "let RestrictAddressFamilies= of the systemd unit have AF_NETLINK";
        default: return "";
    }
}

}  // namespace

std::vector<ListeningSocket> listening_sockets() {
    std::vector<ListeningSocket> sockets;
    for (const auto family : families) {
        inet_diag_req_v2 wanted{};
        wanted.sdiag_family = family;
        wanted.sdiag_protocol = IPPROTO_TCP;
        wanted.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1U);
        wanted.idiag_states = 1U << TCP_LISTEN;
        try {
            dump(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, wanted,
                 [&](const nlmsghdr* header) { sockets.push_back(read_socket(header)); });
        } catch (const std::system_error& error) {
            const int code = error.code().value();
            fail("asking the kernel for listening sockets (sock_diag)", code, hint_of_diag(code));
        }
    }
    return sockets;
}

std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes) {
    if (prefixes.empty()) return {};
    try {
        for (const auto family : families) {
            rtmsg wanted{};
            wanted.rtm_family = family;
            dump(NETLINK_ROUTE, RTM_GETROUTE, wanted, [&](const nlmsghdr* header) {
                const auto* route = static_cast<const rtmsg*>(NLMSG_DATA(header));
                if (route->rtm_type != RTN_LOCAL) return;              // as that to a subnet's broadcast address
                const auto bytes = attribute<rtmsg>(header, RTA_DST);  // none for a default route
                const AddressPrefix local{address_of(route->rtm_family, bytes), route->rtm_dst_len};
                std::erase_if(prefixes, [&](const auto& prefix) {
                    return local.contains(prefix.address) || prefix.contains(local.address);
                });
            });
        }
    } catch (const std::system_error&) {
        return {};  // a missing warning is no reason to fail
    }
    return prefixes;
}

}  // namespace echo_server
