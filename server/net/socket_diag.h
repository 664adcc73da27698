// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "net/port_set.h"

namespace echo_server {

/// A TCP socket that listens, as the kernel's socket diagnostics show it (sock_diag(7)).
struct ListeningSocket {
    asio::ip::tcp::endpoint local;
    bool both_families = false;  ///< of an IPv6 socket: takes IPv4 as well
    std::uint64_t cookie = 0;    ///< as SO_COOKIE tells it
    std::uint32_t inode = 0;     ///< as in "socket:[INODE]" in /proc/PID/fd
    std::uint32_t waiting = 0;   ///< connections in the accept queue
    std::uint32_t backlog = 0;   ///< how many find room there
    std::uint32_t dropped = 0;   ///< connection attempts that the kernel dropped, for want of room or otherwise
};

/// Every TCP socket that listens in the network namespace of the calling thread, on both families. Throws
/// std::runtime_error if the kernel can't tell.
std::vector<ListeningSocket> listening_sockets();

/// The TCP handshakes with some ports that are under way in that network namespace at one moment: the client's SYN was
/// answered, and its ACK has not come yet (SYN-RECV).
class BegunHandshakes {
 public:
    explicit BegunHandshakes(PortSet ports) : ports_(std::move(ports)) {}

    /// Whether there are any; from the second call on, whether any that the first found is still under way. Later clients
    /// may be another listener's. Throws std::runtime_error if the kernel can't tell.
    bool any_left();

 private:
    PortSet ports_;
    std::optional<std::vector<std::uint64_t>> cookies_;  // of their sockets, sorted
};

}  // namespace echo_server
