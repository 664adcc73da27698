// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <string_view>

#include "net/port_set.h"

namespace echo_server {

// connect() and bind(0) take a local port from net.ipv4.ip_local_port_range, but never a port on which a connection
// was accepted, until its last socket is gone, even in LAST-ACK or TIME_WAIT. So a server that answers on all of
// these ports lets its clients stop the host's own connections (net/ipv4/inet_hashtables.c: __inet_hash_connect).

/// The ports from which the kernel chooses local ports.
struct EphemeralPorts {
    PortRange range;
    PortSet usable = {};          ///< the range without reserved ports
    std::string unreadable = {};  ///< why these are the kernel's defaults, not the settings; else ""
};

/// Parses net.ipv4.ip_local_port_range ("32768\t60999"; the kernel's default if it is something else) and
/// net.ipv4.ip_local_reserved_ports ("8080,9000-9010", or "").
EphemeralPorts parse_ephemeral_ports(std::string_view range, std::string_view reserved);

/// The settings of the calling thread's network namespace; the kernel's defaults if they can't be read.
EphemeralPorts ephemeral_ports();

/// Throws std::runtime_error, which says what to leave out, if opening `ports` leaves too few of the `local` ports
/// closed.
void check_ephemeral_ports(const PortSet& ports, const EphemeralPorts& local);

}  // namespace echo_server
