// SPDX-License-Identifier: BSD-2-Clause
#include "support/shown_status.h"

#include <doctest/doctest.h>

#include "support/server.h"

namespace echo_server {

nlohmann::json status(const Netns& netns) {
    return nlohmann::json::parse(run_ok(netns, echo_server({"status", "--json"})))["instances"];
}

nlohmann::json only_status(const Netns& netns) {
    const auto servers = status(netns);
    REQUIRE(servers.size() == 1);
    return servers[0];
}

bool bytes_add_up(const Netns& netns) {
    const auto shown = only_status(netns);
    nlohmann::json sums{{"received", 0U}, {"sent", 0U}};
    for (const auto& figures : shown["by_port"])
        for (const auto& [key, sum] : sums.items()) sum = sum.get<std::size_t>() + figures[key].get<std::size_t>();
    return sums == shown["bytes"];
}

ShownLevels levels(const Netns& netns) {
    ShownLevels lists;
    const auto shown = only_status(netns);
    for (const auto& [level, ports] : shown["levels"].items())
        if (!ports.is_null()) lists[level] = ports["list"];
    return lists;
}

void check_levels(const Netns& netns, const ShownLevels& expected) {
    eventually([&] { return levels(netns) == expected; });
    CHECK(levels(netns) == expected);
}

}  // namespace echo_server
