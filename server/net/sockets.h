// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <vector>

#include "net/address.h"

namespace echo_server {

/// A listening TCP socket, as the kernel's socket diagnostics show it (sock_diag(7)).
struct ListeningSocket {
    asio::ip::tcp::endpoint local;
    bool both_families = false;  ///< an IPv6 socket that serves IPv4 as well
    std::uint64_t cookie = 0;    ///< as SO_COOKIE returns it
    std::uint32_t inode = 0;     ///< as in "socket:[INODE]" in /proc/PID/fd
    std::uint32_t waiting = 0;   ///< connections in the accept queue
    std::uint32_t backlog = 0;   ///< limit of that queue
    std::uint32_t dropped = 0;   ///< connection attempts that the kernel dropped, for want of room or another reason
};

/// All listening TCP sockets of both families in the network namespace of the calling thread. Throws
/// std::runtime_error if the kernel can't tell.
std::vector<ListeningSocket> listening_sockets();

/// Those of `prefixes` at which this network namespace takes no connection, because none of its addresses, nor another
/// route of type local (ip-route(8)), overlaps with them. None if the kernel can't tell.
std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes);

}  // namespace echo_server
