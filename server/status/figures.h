// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "net/port_set.h"
#include "status/status.h"

namespace echo_server {

// Figures that more than one format shows. `counts` are by port.

std::uint64_t sum(const std::vector<std::uint64_t>& counts);

/// A process may have written nonsense there: the result is 0 then, and never negative.
std::uint64_t open_connections(const echo_counters& counters);

struct PortCount {
    std::uint16_t port;
    std::uint64_t count;
};

/// The ten highest counts, without zeros, the highest first.
std::vector<PortCount> busiest(const std::vector<std::uint64_t>& counts);

/// The ports whose count is not 0.
PortSet reached(const std::vector<std::uint64_t>& counts);

/// The version, printable; "?" if it is not known.
std::string version_of(const ServerStatus& server);

}  // namespace echo_server
