// SPDX-License-Identifier: BSD-2-Clause
#include "status/figures.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>

#include "base/text.h"

namespace echo_server {

std::uint64_t attempts(const std::vector<echo_reached>& reached) {
    return std::accumulate(reached.begin(), reached.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const echo_reached& figures) { return sum + figures.steered; });
}

std::uint64_t open_connections(const echo_counters& counters) {
    return counters.accepted - std::min(counters.accepted, counters.ended);
}

bool is_reached(const echo_reached& figures) { return figures.steered + figures.accepted + figures.echoed != 0; }

Levels levels_of(const std::vector<echo_reached>& reached, const std::optional<PortSet>& ports) {
    Levels levels;
    for (std::size_t i = 0; i < reached.size(); ++i) {
        const auto& figures = reached[i];
        if (!is_reached(figures)) continue;
        auto& level = figures.echoed != 0 ? levels.echoed : figures.accepted != 0 ? levels.connected : levels.attempted;
        level.insert(static_cast<std::uint16_t>(i));
    }
    if (ports) levels.not_reached = *ports - levels.echoed - levels.connected - levels.attempted;
    return levels;
}

std::vector<std::uint16_t> busiest(const std::vector<echo_reached>& reached) {
    std::vector<std::uint16_t> ports;
    for (std::size_t port = 0; port < reached.size(); ++port)
        if (is_reached(reached[port])) ports.push_back(static_cast<std::uint16_t>(port));
    std::ranges::stable_sort(ports, std::greater(), [&](std::uint16_t port) {
        const auto& [steered, accepted, echoed] = reached[port];
        return std::tuple(steered, accepted, echoed);
    });
    return ports;
}

std::string version_of(const ServerStatus& server) {
    return server.identity ? printable(server.identity->version) : "?";
}

}  // namespace echo_server
