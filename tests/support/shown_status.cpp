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

}  // namespace echo_server
