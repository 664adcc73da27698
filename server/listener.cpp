// SPDX-License-Identifier: BSD-2-Clause
#include "listener.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "endpoint.h"

namespace {

using asio::ip::tcp;

std::string_view hint(int error) {
    switch (error) {
        case EADDRINUSE:
            return "; another program, perhaps another echo-server, listens there: choose another address or port with --listen";
        case EADDRNOTAVAIL:
            return "; it is no address of this host's interfaces: choose another with --listen, or bring the "
                   "interface up ('ip link set lo up')";
        case EACCES: return "; ports below 1024 need CAP_NET_BIND_SERVICE: choose another with --listen";
        default: return "";
    }
}

[[noreturn]] void fail(const tcp::endpoint& address, int error) {
    throw std::runtime_error(
        fmt::format("listening on {}: {}{}", to_string(address), std::generic_category().message(error), hint(error)));
}

void set_option(const tcp::endpoint& address, const Fd& socket, int level, int name, int value) {
    if (::setsockopt(socket.get(), level, name, &value, sizeof(value)) != 0) fail(address, errno);
}

// An IPv6 socket bound to ::1 would refuse IPv4. Bound to ::ffff:127.0.0.1 it takes both from the dispatch program.
tcp::endpoint map_to_v6(const tcp::endpoint& address) {
    if (address.address().is_v6()) return address;
    return {asio::ip::make_address_v6(asio::ip::v4_mapped, address.address().to_v4()), address.port()};
}

}  // namespace

Fd open_listener(const tcp::endpoint& address) {
    tcp::endpoint bound = map_to_v6(address);
    constexpr int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    Fd socket(::socket(AF_INET6, type, IPPROTO_TCP));
    if (!socket && errno == EAFNOSUPPORT && address.address().is_v4()) {
        bound = address;
        socket = Fd(::socket(AF_INET, type, IPPROTO_TCP));
    }
    if (!socket) fail(address, errno);

    if (bound.address().is_v6()) set_option(address, socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    set_option(address, socket, SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(address, socket, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(address, socket, IPPROTO_TCP, TCP_NODELAY, 1);
    if (::bind(socket.get(), bound.data(), static_cast<socklen_t>(bound.size())) != 0) fail(address, errno);
    // The kernel cuts the backlog down to net.core.somaxconn.
    if (::listen(socket.get(), std::numeric_limits<int>::max()) != 0) fail(address, errno);
    return socket;
}
