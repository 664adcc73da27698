// SPDX-License-Identifier: BSD-2-Clause
// The figures by port are reset: by SIGUSR2, and by a new process.
#include <bpf/bpf.h>
#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/os.h"
#include "echo_dispatch.h"
#include "support/client.h"
#include "support/server.h"
#include "support/shown_status.h"
#include "support/storm.h"

namespace echo_server {

TEST_CASE("levels: SIGUSR2 and --replace reset the figures by port, and SIGUSR2 resets no others") {
    const Netns netns;
    Server server(netns, {"--ports", "1-100"});
    Client open(netns, "127.0.0.1", 1);
    for (std::uint16_t port = 2; port <= 10; ++port) CHECK(echoes(netns, "127.0.0.1", port));
    const ShownLevels fresh{{"echoed", "none"}, {"connected", "none"}, {"attempted", "none"}, {"not_reached", "1-100"}};
    check_levels(netns, {{"echoed", "2-10"}, {"connected", "1"}, {"attempted", "none"}, {"not_reached", "11-100"}});
    const auto reset_port_stats = [&](Server& which, int open_connections) {
        // A session adds its bytes by port each second and at its end: a status after the reset would show them.
        CHECK(eventually([&] { return only_status(netns)["connections"]["open"] == open_connections; }));
        which.signal(SIGUSR2);
        CHECK(which.wait_for("SIGUSR2") == "SIGUSR2: the figures by port are reset");
        CHECK(levels(netns) == fresh);
        CHECK(only_status(netns)["attempts"]["steered"] == 0);
        CHECK(only_status(netns)["by_port"].empty());
    };
    reset_port_stats(server, 1);
    CHECK(only_status(netns)["connections"]["accepted"] == 10);

    // An earlier connection counts with its first echo.
    open.send("x");
    CHECK(open.receive(1) == "x");
    CHECK(echoes(netns, "::1", 20));
    check_levels(netns,
                 {{"echoed", "1,20"}, {"connected", "none"}, {"attempted", "none"}, {"not_reached", "2-19,21-100"}});
    CHECK(eventually([&] { return only_status(netns)["by_port"]["1"]["sent"] == 1; }));
    reset_port_stats(server, 1);
    CHECK(echoes(netns, "::1", 30));

    Server newer(netns, {"--ports", "1-100", "--replace"});
    open.shutdown_write();
    CHECK(server.wait() == 0);
    CHECK(levels(netns) == fresh);
    CHECK(echoes(netns, "::1", 40));
    reset_port_stats(newer, 0);
}

TEST_CASE("levels: SIGUSR2 resets every figure of a port, and not why the port is left out") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    const Fd map(bpf_map_get_fd_by_id(static_cast<__u32>(std::stoul(BpfObjects(netns).maps.at("echo_port_stats")))));
    REQUIRE(map);
    for (const __u32 port : {0U, 7U, 65535U}) {
        CAPTURE(port);
        std::array<__u64, sizeof(echo_port_stats) / sizeof(__u64)> fields{};
        fields.fill(1);
        REQUIRE(bpf_map_update_elem(map.get(), &port, fields.data(), BPF_ANY) == 0);
        server.signal(SIGUSR2);
        server.wait_for("SIGUSR2");
        REQUIRE(bpf_map_lookup_elem(map.get(), &port, fields.data()) == 0);
        decltype(fields) expected{};
        expected.at(offsetof(echo_port_stats, left_out) / sizeof(__u64)) = 1;
        CHECK(fields == expected);
    }
}

TEST_CASE("levels: SIGUSR1 and SIGUSR2 at once log the figures first, and then reset them") {
    const Netns netns;
    Server server(netns, {"--ports", "1-100"});
    for (const bool status_first : {true, false}) {
        CHECK(echoes(netns, "127.0.0.1", 7));
        server.freeze();
        for (const int number : {status_first ? SIGUSR1 : SIGUSR2, status_first ? SIGUSR2 : SIGUSR1, SIGCONT})
            server.signal(number);
        CHECK(server.wait_for("echoed") == "  echoed       1 port: 7");
        server.wait_for("SIGUSR2: the figures by port are reset");
        CHECK(status_shows(netns, "  echoed       none\n"));
    }
}

TEST_CASE("levels: a storm of SIGUSR2 costs no client its connection, and a stop gets through" *
          doctest::test_suite("alone")) {
    const Netns netns;
    Server server(netns, {"--ports", "1-1000", "--threads", "1"});
    Storm storm([&] { ::kill(server.pid(), SIGUSR2); });
    int served = 0;
    for (std::uint16_t port = 1; port <= 1000; ++port)
        if (echoes(netns, port % 2 == 0 ? "127.0.0.1" : "::1", port)) ++served;
    CHECK(served == 1000);
    for (int i = 0; i < 10; ++i) CHECK(server.wait_for("SIGUSR2").ends_with(": the figures by port are reset"));
    CHECK(eventually([&] { return status_shows(netns, "  echoed       none\n"); }));
    server.signal(SIGTERM);
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED; }));
    storm.stop();  // first, because after the wait another process may have the number
    CHECK(server.wait() == 0);
}

}  // namespace echo_server
