// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/port_set.h"
#include "status/status.h"

namespace echo_server {

// Figures that more than one format shows.

/// All lookups that got the socket.
std::uint64_t attempts(const std::vector<echo_reached>& reached);

/// A process may have written nonsense there: the result is 0 then, and never negative.
std::uint64_t open_connections(const echo_counters& counters);

/// Whether any figure is not 0.
bool is_reached(const echo_reached& figures);

/// How far clients got. Each port has the highest level that a client reached there, and so is in one set.
struct Levels {
    PortSet echoed;                      ///< bytes were sent back
    PortSet connected;                   ///< connections were accepted, and that is all
    PortSet attempted;                   ///< lookups got the socket, and that is all
    std::optional<PortSet> not_reached;  ///< open, and nothing came; empty if the open ports are not known
};
/// `ports` are the open ports, if they are known. The result may have others: they were open before.
Levels levels_of(const std::vector<echo_reached>& reached, const std::optional<PortSet>& ports);

/// The ports that were reached, the port with the most attempts first.
std::vector<std::uint16_t> busiest(const std::vector<echo_reached>& reached);

/// The version, printable; "?" if it is not known.
std::string version_of(const ServerStatus& server);

}  // namespace echo_server
