// SPDX-License-Identifier: BSD-2-Clause
#include "socket_diag.h"

#include <fmt/format.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "fd.h"

using asio::ip::tcp;

namespace {

[[noreturn]] void fail(int error) {
    const auto* hint =
        error == ENOENT ? "; the kernel has it in the module tcp_diag: 'sudo modprobe tcp_diag' loads it" : "";
    throw std::runtime_error(fmt::format("asking the kernel for listening sockets (sock_diag): {}{}",
                                         std::generic_category().message(error), hint));
}

struct Request {
    nlmsghdr header;
    inet_diag_req_v2 body;
};

void send_request(const Fd& netlink, int family) {
    Request request{};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.body.sdiag_family = static_cast<__u8>(family);
    request.body.sdiag_protocol = IPPROTO_TCP;
    request.body.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1U);
    request.body.idiag_states = 1U << TCP_LISTEN;
    if (::send(netlink.get(), &request, sizeof(request), 0) < 0) fail(errno);
}

// Copies out of a buffer of messages, where nothing need be aligned for its type.
template <typename T>
T read_as(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

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

ListeningSocket read_socket(const nlmsghdr* header) {
    const auto* message = static_cast<const inet_diag_msg*>(NLMSG_DATA(header));
    const auto& id = message->id;
    const auto address = message->idiag_family == AF_INET ? address_of<asio::ip::address_v4>(id.idiag_src)
                                                          : address_of<asio::ip::address_v6>(id.idiag_src);
    ListeningSocket socket;
    socket.local = tcp::endpoint(address, ntohs(id.idiag_sport));
    socket.cookie = id.idiag_cookie[0] | static_cast<std::uint64_t>(id.idiag_cookie[1]) << 32U;
    socket.inode = message->idiag_inode;
    socket.waiting = message->idiag_rqueue;
    socket.backlog = message->idiag_wqueue;
    auto left = header->nlmsg_len - NLMSG_LENGTH(sizeof(*message));
    for (const auto* attribute = reinterpret_cast<const rtattr*>(message + 1); RTA_OK(attribute, left);
         attribute = RTA_NEXT(attribute, left))
        read_attribute(socket, attribute);
    return socket;
}

// Returns false at the end of the dump.
bool receive_some(const Fd& netlink, std::vector<ListeningSocket>& sockets) {
    alignas(nlmsghdr) std::array<char, 32768> buffer;
    const auto size = ::recv(netlink.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) return true;
    if (size < 0) fail(errno);
    auto left = static_cast<unsigned>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            // Whether the dump went well is told at its end.
            const auto error = header->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) ? read_as<int>(NLMSG_DATA(header)) : 0;
            if (error < 0) fail(-error);
            return false;
        }
        if (header->nlmsg_type == NLMSG_ERROR) fail(-static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error);
        if (header->nlmsg_type == SOCK_DIAG_BY_FAMILY) sockets.push_back(read_socket(header));
    }
    return true;
}

}  // namespace

std::vector<ListeningSocket> listening_sockets() {
    const Fd netlink(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!netlink) fail(errno);
    std::vector<ListeningSocket> sockets;
    for (const int family : {AF_INET, AF_INET6}) {
        send_request(netlink, family);
        while (receive_some(netlink, sockets)) continue;
    }
    return sockets;
}
