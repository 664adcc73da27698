// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>

#include "fd.h"

/// Opens the one listening socket, with as long a backlog as the kernel allows. `address` is an IPv4 one or [::]: on any
/// other IPv6 address the kernel would let it serve IPv6 alone. Where the host has IPv6, the socket takes connections
/// of both families from the dispatch program; by itself it is reachable at `address` alone. Accepted sockets inherit
/// TCP_NODELAY and SO_KEEPALIVE. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);

/// The same for a socket that listens already, passed by another process: sets its options. Throws std::runtime_error
/// if it is no listening TCP socket, or one that would refuse IPv4 clients.
Fd adopt_listener(Fd socket);

/// True of an IPv4 socket: to IPv6 clients that are steered there the kernel does not answer.
bool serves_ip4_alone(const Fd& listener);
