// SPDX-License-Identifier: BSD-2-Clause
#include "net/sockets.h"

#include <fmt/format.h>
#include <linux/errqueue.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>

#include "base/text.h"

namespace echo_server {
namespace {

using asio::ip::tcp;

[[noreturn]] void fail_to_listen(const tcp::endpoint& address) {
    const int error = errno;
    fail(fmt::format("listening on {}", to_string(address)), error,
         error == EADDRINUSE
             ? "another program, perhaps another echo-server, listens there: choose another address or port with "
               "--listen"
         : error == EADDRNOTAVAIL
             ? "no interface here has this address: choose another with --listen, or bring the interface up ('ip link "
               "set lo up'); a systemd unit with PrivateNetwork=yes has only the addresses of lo"
         : error == EACCES ? "ports below 1024 need CAP_NET_BIND_SERVICE: choose another with --listen"
                           : "");
}

// What one client may use of the kernel's memory, in bytes: together at most 8 MiB, with what the kernel adds. A client
// that does not read takes memory from all others: net.ipv4.tcp_mem limits all network namespaces of a host together.
constexpr int receive_buffer = 9 << 19;  // larger, because a segment needs more room than its bytes
constexpr int send_buffer = 13 << 18;

template <typename Value>
void set(const Fd& socket, int level, int name, const Value& value) {
    if (::setsockopt(socket.get(), level, name, &value, sizeof(value)) != 0)
        fail("setting options of the listening socket");
}

// Zero if `fd` is not a socket.
template <typename Value>
Value get(int fd, int name) {
    Value value{};
    socklen_t size = sizeof(value);
    return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : Value{};
}

// Limits a buffer to `size`, unless the kernel's limit (the last number of `sysctl`) is as low already: a buffer whose
// size is set does not adapt any more.
void limit_buffer(const Fd& socket, int option, const std::string& sysctl, int size) {
    const auto limits = read_sysctl(sysctl);
    const auto limit = parse_number<int>(std::string_view(limits).substr(limits.find_last_of(" \t") + 1));
    if (limit && *limit <= size) return;
    // Half, because the kernel doubles it. An option without FORCE would be capped by net.core.rmem_max or wmem_max.
    set(socket, SOL_SOCKET, option, size / 2);
}

Fd bind_socket(const tcp::endpoint& address) {
    // An IPv6 socket that is bound to ::ffff:127.0.0.1 gets both families from the dispatch program. Bound to ::1, it
    // would refuse IPv4.
    const bool v4 = address.address().is_v4();
    tcp::endpoint bound = address;
    if (v4) bound.address(asio::ip::make_address_v6(asio::ip::v4_mapped, address.address().to_v4()));
    constexpr int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    Fd socket(::socket(AF_INET6, type, IPPROTO_TCP));
    if (!socket && errno == EAFNOSUPPORT && v4) {
        bound = address;
        socket = Fd(::socket(AF_INET, type, IPPROTO_TCP));
    }
    if (!socket) fail_to_listen(address);

    if (bound.address().is_v6()) set(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    if (::bind(socket.get(), bound.data(), static_cast<socklen_t>(bound.size())) != 0) fail_to_listen(address);
    return socket;
}

constexpr std::array<unsigned char, 2> families{AF_INET, AF_INET6};

// The message names listening sockets only, because errors about routes are never shown.
[[noreturn]] void fail_to_dump(int error = errno) {
    fail("asking the kernel for listening sockets (sock_diag)", error,
         error == ENOENT         ? "load the kernel module tcp_diag ('modprobe tcp_diag')"
         : error == EAFNOSUPPORT ? "add AF_NETLINK to RestrictAddressFamilies= in the systemd unit"
                                 : "");
}

// Asks the kernel in the network namespace of the calling thread, and calls `visit` with each message of the answer
// (netlink(7)). Throws std::system_error.
template <typename Body, typename Visit>
void dump(int protocol, __u16 type, const Body& body, Visit visit) {
    struct {
        nlmsghdr header;
        Body body;
    } request{.header = {}, .body = body};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    const Fd netlink(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol));
    if (!netlink || ::send(netlink.get(), &request, sizeof(request), 0) < 0) fail_to_dump();
    std::vector<char> buffer(32768);  // the kernel's largest piece
    for (;;) {
        const auto size = ::recv(netlink.get(), buffer.data(), buffer.size(), 0);
        if (size < 0) fail_to_dump();
        auto left = static_cast<unsigned>(size);
        for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            // Both messages begin with an error number. In the last message, 0 means that the dump is complete.
            const bool ends = header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR;
            const int error = ends ? *static_cast<const int*>(NLMSG_DATA(header)) : 0;
            if (error != 0) fail_to_dump(-error);
            if (ends) return;
            visit(header);
        }
    }
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

// Bytes that are missing in `bytes` are 0.
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

// The codes of "destination unreachable", from 0 on (RFC 1812, 5.2.7.1, and RFC 4443, 3.1).
constexpr std::string_view codes4 =
    "net unreachable,host unreachable,protocol unreachable,port unreachable,code 4,code 5,net unknown,host unknown,"
    "code 8,net prohibited,host prohibited,code 11,code 12,administratively prohibited,";
constexpr std::string_view codes6 =
    "no route,administratively prohibited,bad scope,address unreachable,port unreachable,source refused,reject route,";

std::string_view name_of(const sock_extended_err& error) {
    const bool is_v4 = error.ee_origin == SO_EE_ORIGIN_ICMP;
    if (error.ee_type != (is_v4 ? ICMP_DEST_UNREACH : ICMP6_DST_UNREACH))
        return error.ee_type == (is_v4 ? ICMP_TIME_EXCEEDED : ICMP6_TIME_EXCEEDED) ? "time exceeded" : "error";
    auto names = is_v4 ? codes4 : codes6;
    for (auto code = error.ee_code; code > 0 && !names.empty(); --code) names.remove_prefix(names.find(',') + 1);
    return names.empty() ? "unreachable" : names.substr(0, names.find(','));
}

}  // namespace

Fd open_listener(const tcp::endpoint& address) { return adopt_listener(bind_socket(address)); }

void check_address(const tcp::endpoint& address) { bind_socket(address); }

Fd adopt_listener(Fd socket) {
    limit_buffer(socket, SO_RCVBUFFORCE, "net/ipv4/tcp_rmem", receive_buffer);
    limit_buffer(socket, SO_SNDBUFFORCE, "net/ipv4/tcp_wmem", send_buffer);
    // A peer that is silent for a minute is probed, and dropped after 6 probes without an answer.
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, 6);
    // Close with a reset, however the process ends. Only a session that has sent back all bytes changes that.
    set(socket, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
    set(socket, SOL_SOCKET, SO_OOBINLINE, 1);
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    // The kernel lowers the backlog to net.core.somaxconn.
    if (::listen(socket.get(), std::numeric_limits<int>::max()) != 0) fail_to_listen(local_endpoint(socket.get()));
    return socket;
}

bool is_listening(int fd) { return get<int>(fd, SO_ACCEPTCONN) == 1; }

bool is_of_another_netns(const Fd& socket) {
    const Fd netns(::ioctl(socket.get(), SIOCGSKNS));
    struct stat status{};
    return netns && ::fstat(netns.get(), &status) == 0 && status.st_ino != inode_of_namespace("net");
}

std::uint64_t socket_cookie(int fd) { return get<std::uint64_t>(fd, SO_COOKIE); }

tcp::endpoint local_endpoint(int fd) {
    tcp::endpoint bound;
    auto size = static_cast<socklen_t>(bound.capacity());
    if (::getsockname(fd, bound.data(), &size) == 0) bound.resize(size);
    return bound;
}

std::vector<ListeningSocket> listening_sockets() {
    std::vector<ListeningSocket> sockets;
    for (const auto family : families) {
        inet_diag_req_v2 wanted{};
        wanted.sdiag_family = family;
        wanted.sdiag_protocol = IPPROTO_TCP;
        wanted.idiag_ext = 1U << (INET_DIAG_SKMEMINFO - 1U);
        wanted.idiag_states = 1U << TCP_LISTEN;
        dump(NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, wanted,
             [&](const nlmsghdr* header) { sockets.push_back(read_socket(header)); });
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
                if (route->rtm_type != RTN_LOCAL) return;              // for example a broadcast address
                const auto bytes = attribute<rtmsg>(header, RTA_DST);  // none for a default route
                const AddressPrefix local{address_of(route->rtm_family, bytes), route->rtm_dst_len};
                std::erase_if(prefixes, [&](const auto& prefix) { return overlap(prefix, local); });
            });
        }
    } catch (const std::system_error&) {
        return {};  // this only costs a warning
    }
    return prefixes;
}

void keep_icmp_errors(int socket, int family) {
    constexpr int yes = 1;
    const bool is_v4 = family == AF_INET;
    ::setsockopt(socket, is_v4 ? SOL_IP : SOL_IPV6, is_v4 ? IP_RECVERR : IPV6_RECVERR, &yes, sizeof(yes));
}

bool keeps_icmp_errors() {
    utsname system{};
    return ::uname(&system) == 0 && ::strverscmp(system.release, "5.8") >= 0;
}

std::string take_icmp_error(int socket) {
    alignas(cmsghdr) std::array<std::byte, 512> control;
    msghdr message{};
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(socket, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) return {};
    const auto* const part = CMSG_FIRSTHDR(&message);
    if (part == nullptr) return {};
    // `part` holds the error, then the address that sent it.
    sock_extended_err error{};
    asio::ip::tcp::endpoint sender;
    const std::string_view data(reinterpret_cast<const char*>(CMSG_DATA(part)), part->cmsg_len - CMSG_LEN(0));
    data.copy(reinterpret_cast<char*>(&error), sizeof(error));
    if (error.ee_origin != SO_EE_ORIGIN_ICMP && error.ee_origin != SO_EE_ORIGIN_ICMP6) return {};
    data.substr(sizeof(error)).copy(reinterpret_cast<char*>(sender.data()), sender.capacity());
    const bool is_ours = sender.address() == local_endpoint(socket).address();
    return fmt::format("ICMP {} from {}{}", name_of(error), sender.address().to_string(),
                       is_ours ? " (this host)" : "");
}

}  // namespace echo_server
