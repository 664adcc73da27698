// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <string_view>

#include "base/fd.h"

namespace echo_server {

/// Opens the listening socket, with the longest backlog that the kernel allows. `address` is an IPv4 address or [::]:
/// on another IPv6 address the socket would serve IPv6 alone. Where the host has IPv6, the dispatch program can give
/// the socket connections of both families; without the program it is reachable at `address` alone. Accepted sockets
/// inherit its options: SO_LINGER, by which close(2) resets the client; limits of their buffers; probes of idle peers;
/// TCP_NODELAY; SO_OOBINLINE, as urgent data is data. Needs CAP_NET_ADMIN. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);

/// Throws what open_listener() would throw, and listens nowhere.
void check_address(const asio::ip::tcp::endpoint& address);

/// Sets the options and the backlog of `socket`, which another process has opened by open_listener(), perhaps of
/// another version or under other sysctls. Needs CAP_NET_ADMIN. Throws std::runtime_error, also if it does not listen.
Fd adopt_listener(Fd socket);

/// What is said of a listener that does not listen any more.
constexpr std::string_view why_not_listening =
    "the listening socket was destroyed from outside (for example by 'ss -K')";

/// Whether a socket listens; false once it was shut down or destroyed.
bool is_listening(int fd);

/// The number that names a socket: 'ss -e' shows it behind "sk:", and a dump of echo_socket has it. 0 if `fd` is not
/// a socket.
std::uint64_t socket_cookie(int fd);

/// The address and port that a socket is bound to; of an accepted socket, what the client dialled.
asio::ip::tcp::endpoint local_endpoint(int fd);

/// True if `socket` is known to belong to another network namespace than the calling thread.
bool is_of_another_netns(const Fd& socket);

}  // namespace echo_server
