// SPDX-License-Identifier: BSD-2-Clause
#include "net/listener.h"

#include <fmt/format.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <limits>
#include <stdexcept>
#include <utility>

#include "base/os.h"
#include "base/text.h"
#include "net/address.h"

namespace echo_server {
namespace {

using asio::ip::tcp;

std::string_view hint(int error) {
    switch (error) {
        case EADDRINUSE:
            return "another program, perhaps another echo-server, listens there: choose another address or port "
                   "with --listen";
        case EADDRNOTAVAIL:
            return "it is not an address of an interface here: choose another with --listen, or bring the interface "
                   "up ('ip link set lo up'); a systemd unit with PrivateNetwork=yes has none but those of lo";
        case EACCES: return "ports below 1024 need CAP_NET_BIND_SERVICE: choose another with --listen";
        default: return "";
    }
}

[[noreturn]] void fail_to_listen(const tcp::endpoint& address) {
    const int error = errno;
    fail(fmt::format("listening on {}", to_string(address)), error, hint(error));
}

// What a client can cost the kernel, in bytes: with the little that the kernel puts on top, at most 8 MiB.
// net.ipv4.tcp_mem is one limit for all network namespaces of a host: a client that does not read takes from everybody.
constexpr int receive_buffer = 9 << 19;  // more, because segments need more room than their bytes
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

// The kernel enlarges a buffer as long as its size is not set, up to the last number of `sysctl`.
void limit_buffer(const Fd& socket, int option, const std::string& sysctl, int size) {
    const auto limits = read_sysctl(sysctl).value_or("");
    const auto limit = parse_number<int>(std::string_view(limits).substr(limits.find_last_of(" \t") + 1));
    if (limit && *limit <= size) return;
    // The kernel doubles what is set. Not by SO_RCVBUF, which net.core.rmem_max caps: CAP_NET_ADMIN is there, as the
    // program needs it too.
    set(socket, SOL_SOCKET, option, size / 2);
}

// Accepted sockets inherit the options. `address` is for messages alone.
Fd listen_with_options(Fd socket, const tcp::endpoint& address) {
    limit_buffer(socket, SO_RCVBUFFORCE, "net/ipv4/tcp_rmem", receive_buffer);
    limit_buffer(socket, SO_SNDBUFFORCE, "net/ipv4/tcp_wmem", send_buffer);
    // A peer that is silent for a minute is asked for a sign of life, six times.
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, 6);
    // However the process ends, a connection ends by a reset, unless its session knows that no byte is owed.
    set(socket, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
    set(socket, SOL_SOCKET, SO_OOBINLINE, 1);
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
    // The kernel cuts the backlog down to net.core.somaxconn.
    if (::listen(socket.get(), std::numeric_limits<int>::max()) != 0) fail_to_listen(address);
    return socket;
}

// Bound, and not listening yet.
Fd bind_socket(const tcp::endpoint& address) {
    // An IPv6 socket bound to ::1 would refuse IPv4. Bound to ::ffff:127.0.0.1, it gets both families from the dispatch
    // program.
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

}  // namespace

Fd open_listener(const tcp::endpoint& address) { return listen_with_options(bind_socket(address), address); }

void check_address(const tcp::endpoint& address) { bind_socket(address); }

Fd adopt_listener(Fd socket) {
    // listen(2) would make any socket listen.
    if (!is_listening(socket.get())) throw std::runtime_error("the listening socket does not listen any more");
    const auto address = local_endpoint(socket.get());
    return listen_with_options(std::move(socket), address);
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

}  // namespace echo_server
