// SPDX-License-Identifier: BSD-2-Clause
#include "net/socket_diag.h"

#include <fmt/format.h>
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
#include <utility>

#include "base/error.h"
#include "net/netlink.h"

namespace echo_server {

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

}  // namespace echo_server
