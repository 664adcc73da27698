// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

#include "base/fd.h"

namespace echo_server {

/// Opens the one listening socket, with as long a backlog as the kernel allows. `address` is an IPv4 one or [::]: on any
/// other IPv6 address the kernel would let it serve IPv6 alone. Where the host has IPv6, the socket takes connections
/// of both families from the dispatch program; by itself it is reachable at `address` alone. Accepted sockets inherit
/// TCP_NODELAY, SO_KEEPALIVE and SO_OOBINLINE: urgent data is data. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);

/// Why `socket` can't serve as the listener: it is no listening TCP socket, or one that would refuse IPv4 clients. Empty
/// if it can.
std::string why_not_a_listener(const Fd& socket);

/// Whether a socket listens: no more once it was shut down or destroyed.
bool is_listening(int fd);

/// Where a socket comes from that the server has not opened.
enum class Origin { systemd, running_server };

/// Makes `socket` the listener: sets the options that open_listener() sets, and resets what else accepted sockets would
/// inherit and suffer from. Throws std::runtime_error if it can't serve as one.
Fd adopt_listener(Fd socket, Origin origin);

/// Tells the socket from all others, as ss does with "sk:" and a dump of echo_socket; 0 if `fd` is no socket.
std::uint64_t socket_cookie(int fd);

/// The address and port that a socket is bound to; of an accepted one, those that the client dialled.
asio::ip::tcp::endpoint local_endpoint(int fd);

/// The interface or VRF that a socket is bound to (SO_BINDTODEVICE in socket(7)); "" if to none.
std::string bound_interface(int fd);

/// True of an IPv4 socket: to IPv6 clients that are steered there the kernel does not answer.
bool serves_ip4_alone(const Fd& listener);

}  // namespace echo_server
