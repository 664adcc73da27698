// SPDX-License-Identifier: BSD-2-Clause
#include "status/figures.h"

#include <algorithm>
#include <numeric>

#include "base/text.h"

namespace echo_server {

std::uint64_t sum(const std::vector<std::uint64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

std::uint64_t open_connections(const echo_counters& counters) {
    return counters.accepted - std::min(counters.accepted, counters.ended);
}

std::vector<PortCount> busiest(const std::vector<std::uint64_t>& counts) {
    constexpr std::size_t max_shown = 10;
    std::vector<PortCount> found;
    for (std::size_t port = 0; port < counts.size(); ++port)
        if (counts[port] > 0) found.push_back({static_cast<std::uint16_t>(port), counts[port]});
    std::ranges::stable_sort(found, [](const auto& a, const auto& b) { return a.count > b.count; });
    if (found.size() > max_shown) found.resize(max_shown);
    return found;
}

PortSet reached(const std::vector<std::uint64_t>& counts) {
    PortSet ports;
    for (std::size_t port = 0; port < counts.size(); ++port)
        if (counts[port] > 0) ports.insert(static_cast<std::uint16_t>(port));
    return ports;
}

std::string version_of(const ServerStatus& server) {
    return server.identity ? printable(server.identity->version) : "?";
}

}  // namespace echo_server
