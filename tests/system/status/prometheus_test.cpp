// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server status --prometheus' over time, and as promtool reads it.
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <cstdint>
#include <set>
#include <sstream>
#include <string>

#include "support/client.h"
#include "support/server.h"

namespace echo_server {

using namespace std::chrono_literals;

TEST_CASE("status: for Prometheus the series stay the same, also after a restart") {
    const Netns netns;
    const auto series = [&] {
        std::string names;
        std::istringstream lines(run_ok(netns, echo_server({"status", "--prometheus"})));
        for (std::string line; std::getline(lines, line);)
            if (!line.starts_with('#') && !line.starts_with("echo_server_info"))
                names += line.substr(0, line.rfind(' ')) + "\n";
        return names;
    };
    std::string before;
    for (int i = 0; i < 2; ++i) {
        Server server(netns, {"--ports", "1-100"});
        CHECK(series() == (before.empty() ? series() : before));
        for (std::uint16_t port = 1; port <= 20; ++port) CHECK(echoes(netns, "127.0.0.1", port));
        before = series();
        CHECK(before.find("echo_server_connections_accepted_total{listener=\"127.0.0.1:7777\"}\n") !=
              std::string::npos);
        CHECK(before.find("program=") == std::string::npos);
        CHECK(before.find("port=") == std::string::npos);
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
    }
}

TEST_CASE("status: for Prometheus the time of the start is the same at each look") {
    const Netns netns;
    const auto before = std::chrono::system_clock::now();
    const Server server(netns, {"--ports", "7"});
    const auto after = std::chrono::system_clock::now();
    const std::string name = "\necho_server_start_time_seconds{listener=\"127.0.0.1:7777\"} ";
    std::set<std::string> seen;
    for (int i = 0; i < 20; ++i) {
        const auto metrics = run_ok(netns, echo_server({"status", "--prometheus"}));
        const auto start = metrics.find(name);
        REQUIRE(start != std::string::npos);
        seen.insert(metrics.substr(start + name.size(), metrics.find('\n', start + 1) - start - name.size()));
    }
    REQUIRE(seen.size() == 1);
    const std::chrono::duration<double> started(std::stod(*seen.begin()));
    CHECK(started >= before.time_since_epoch() - 1ms);  // the start is rounded to milliseconds
    CHECK(started <= after.time_since_epoch() + 1ms);
}

TEST_CASE("status: promtool finds no fault in the output for Prometheus") {
    const Netns netns;
    const auto check = [&] {
        const auto* const command = R"("$0" status --prometheus | "$1" check metrics)";
        const auto checked = run(netns, {"sh", "-c", command, ECHO_SERVER, PROMTOOL});
        CHECK(checked.code == 0);
        CHECK(checked.output.empty());
    };
    Server older(netns, {"--ports", "7", "--address", "127.0.0.0/8", "--drain-timeout", "3600"});
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    check();
    const Server newer(netns, {"--ports", "7", "--replace"});
    older.wait_for("waiting up to");
    CHECK(count(run_ok(netns, echo_server({"status", "--prometheus"})), "\necho_server_serving{") == 2);
    check();
}

}  // namespace echo_server
