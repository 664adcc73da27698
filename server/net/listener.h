// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

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

/// Why `socket` can't be the listener: it is not a listening TCP socket, or would refuse IPv4 clients. Empty if it
/// can.
std::string why_not_a_listener(const Fd& socket);

/// Whether a socket listens; false once it was shut down or destroyed.
bool is_listening(int fd);

/// The source of a socket that the server has not opened itself.
enum class Origin { socket_unit, descriptor_store, running_server };

/// Makes `socket` the listener: sets the options that open_listener() sets, and resets options that would harm
/// accepted sockets. Needs CAP_NET_ADMIN. Throws std::runtime_error if it can't be the listener.
Fd adopt_listener(Fd socket, Origin origin);

/// The number that names a socket: 'ss -e' shows it behind "sk:", and a dump of echo_socket has it. 0 if `fd` is not
/// a socket.
std::uint64_t socket_cookie(int fd);

/// The address and port that a socket is bound to; of an accepted socket, what the client dialled.
asio::ip::tcp::endpoint local_endpoint(int fd);

/// True if `socket` is known to belong to another network namespace than the calling thread.
bool is_of_another_netns(const Fd& socket);

/// True for an IPv4 socket: the kernel refuses IPv6 clients that are steered there.
bool serves_ip4_alone(const Fd& listener);

}  // namespace echo_server
