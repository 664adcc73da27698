// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>

#include "fd.h"

/// Opens the one listening socket, on an IPv4 address (or on [::], any address of both families), with as long a
/// backlog as the kernel allows. Where the host has IPv6, the socket takes connections of both families from the
/// dispatch program; by itself it is reachable at `address` alone. Accepted sockets inherit TCP_NODELAY and
/// SO_KEEPALIVE. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);
