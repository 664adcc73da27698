// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/port_set.h"

namespace echo_server {

// connect() and bind(0) take a local port from net.ipv4.ip_local_port_range, and never one on which a connection was
// accepted, until the last socket of it is gone, in LAST-ACK or TIME_WAIT even. A server that answers on all of these
// ports lets its clients stop the host's own connections (net/ipv4/inet_hashtables.c: __inet_hash_connect).

/// From where the kernel takes local ports.
struct EphemeralPorts {
    PortRange range;
    PortSet usable;               ///< of the range, less those that are reserved
    std::string unreadable = {};  ///< why the kernel's defaults stand here instead of what is set, or ""
};

/// Of what net.ipv4.ip_local_port_range ("32768\t60999") and net.ipv4.ip_local_reserved_ports ("8080,9000-9010", or
/// nothing) say. Nothing if the range is none.
std::optional<EphemeralPorts> parse_ephemeral_ports(std::string_view range, std::string_view reserved);

/// What holds in the network namespace of the calling thread; the kernel's defaults if that can't be read.
EphemeralPorts ephemeral_ports();

/// Why `ports` may not be opened, as too few of the `local` ones stay closed, and what to do; nothing if they may be.
std::optional<std::string> explain_ephemeral(const PortSet& ports, const EphemeralPorts& local);

/// Throws std::runtime_error if opening `ports` could leave this network namespace no port for connections of its own.
void check_ephemeral_ports(const PortSet& ports);

}  // namespace echo_server
