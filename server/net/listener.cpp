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
#include <string>
#include <string_view>

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

// A peer that is silent for a minute is asked for a sign of life, six times.
constexpr int probe_after = 60;
constexpr int probe_every = 10;
constexpr int probes = 6;

template <typename Value>
void set(const Fd& socket, int level, int name, const Value& value) {
    if (::setsockopt(socket.get(), level, name, &value, sizeof(value)) != 0)
        fail("setting options of the listening socket");
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

// Accepted sockets inherit all of it.
void set_options(const Fd& socket) {
    limit_buffer(socket, SO_RCVBUFFORCE, "net/ipv4/tcp_rmem", receive_buffer);
    limit_buffer(socket, SO_SNDBUFFORCE, "net/ipv4/tcp_wmem", send_buffer);
    set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(socket, IPPROTO_TCP, TCP_KEEPIDLE, probe_after);
    set(socket, IPPROTO_TCP, TCP_KEEPINTVL, probe_every);
    set(socket, IPPROTO_TCP, TCP_KEEPCNT, probes);
    // However the process ends, a connection ends by a reset, unless its session knows that no byte is owed.
    set(socket, SOL_SOCKET, SO_LINGER, linger{.l_onoff = 1, .l_linger = 0});
    set(socket, SOL_SOCKET, SO_OOBINLINE, 1);
    set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
}

// The kernel cuts the backlog down to net.core.somaxconn.
bool begin_to_listen(const Fd& socket) { return ::listen(socket.get(), std::numeric_limits<int>::max()) == 0; }

// An IPv6 socket bound to ::1 would refuse IPv4. Bound to ::ffff:127.0.0.1, it gets both families from the dispatch
// program.
tcp::endpoint map_to_v6(const tcp::endpoint& address) {
    if (address.address().is_v6()) return address;
    return {asio::ip::make_address_v6(asio::ip::v4_mapped, address.address().to_v4()), address.port()};
}

// Bound, and not listening yet.
Fd bind_socket(const tcp::endpoint& address) {
    tcp::endpoint bound = map_to_v6(address);
    constexpr int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    Fd socket(::socket(AF_INET6, type, IPPROTO_TCP));
    if (!socket && errno == EAFNOSUPPORT && address.address().is_v4()) {
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

Fd open_listener(const tcp::endpoint& address) {
    Fd socket = bind_socket(address);
    set_options(socket);
    if (!begin_to_listen(socket)) fail_to_listen(address);
    return socket;
}

void check_address(const tcp::endpoint& address) { bind_socket(address); }

Fd adopt_listener(Fd socket) {
    // listen(2) would make any socket listen.
    if (!is_listening(socket.get())) throw std::runtime_error("the listening socket does not listen any more");
    set_options(socket);
    if (!begin_to_listen(socket)) fail("setting the backlog of the listening socket");
    return socket;
}

bool is_listening(int fd) {
    int value = 0;
    socklen_t size = sizeof(value);
    return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value == 1;
}

bool is_of_another_netns(const Fd& socket) {
    const Fd netns(::ioctl(socket.get(), SIOCGSKNS));
    struct stat status{};
    return netns && ::fstat(netns.get(), &status) == 0 && status.st_ino != CurrentNetns().inode;
}

std::uint64_t socket_cookie(int fd) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    return ::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

tcp::endpoint local_endpoint(int fd) {
    tcp::endpoint bound;
    auto size = static_cast<socklen_t>(bound.capacity());
    if (::getsockname(fd, bound.data(), &size) == 0) bound.resize(size);
    return bound;
}

}  // namespace echo_server
