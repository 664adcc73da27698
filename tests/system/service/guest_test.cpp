// SPDX-License-Identifier: BSD-2-Clause
// Tests that need a machine of their own: only the guests of scripts/kernel-matrix run them.
#include <doctest/doctest.h>

#include <linux/capability.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <thread>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

void move_wall_clock(std::time_t by) {
    timespec now{};
    REQUIRE(::clock_gettime(CLOCK_REALTIME, &now) == 0);
    now.tv_sec += by;
    REQUIRE(::clock_settime(CLOCK_REALTIME, &now) == 0);
}

}  // namespace

TEST_CASE("guest: without the kernel module tcp_diag no port opens, except with --shadow-listeners" * doctest::skip()) {
    const std::string what =
        "echo-server: asking the kernel for listening sockets (sock_diag): No such file or directory; load the kernel "
        "module tcp_diag ('modprobe tcp_diag')";
    const Netns netns;
    const auto [code, output] = run(netns, echo_server({"--ports", "7"}));
    CHECK(code == 1);
    CHECK(output == what + ". --shadow-listeners starts without knowing whose ports it takes\n");
    const Server server(netns, {"--ports", "7", "--shadow-listeners"});
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(echoes(netns, "::1", 7));
    const auto status = run_ok(netns, echo_server({"status"}));
    CHECK(status.starts_with(what + "; listeners are not shown\n"));
    CHECK(status.find("\n  ports        1 open: 7\n") != std::string::npos);
}

TEST_CASE("guest: where BPF maps count as locked memory, the error names its limit" * doctest::skip()) {
    const Netns netns;
    const auto little = [] {
        limit_locked_memory(65536);
        become_ordinary({CAP_BPF, CAP_NET_ADMIN});
    };
    if (kernel_before(5, 11)) {
        const auto [code, output] = run(netns, echo_server({"--ports", "7"}), little);
        CHECK(code == 1);
        CHECK(output.find("(before Linux 5.11 also 'ulimit -l unlimited')") != std::string::npos);
    } else {
        const Server server(netns, {"--ports", "7"}, little);
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
}

TEST_CASE("guest: a wall clock that jumps ends no connection early, and none late" * doctest::skip()) {
    constexpr std::time_t ten_years = 10L * 365 * 86400;
    const Netns netns;
    Server server(netns, {"--ports", "7", "--idle-timeout", "2", "--drain-timeout", "3600"});
    for (const auto jump : {ten_years, -2 * ten_years, ten_years}) {
        CAPTURE(jump);
        const auto start = steady_clock::now();
        Client client(netns, "127.0.0.1", 7);
        client.send("before");
        CHECK(client.receive(6) == "before");
        move_wall_clock(jump);
        client.send("after");
        CHECK(client.receive(5) == "after");
        CHECK(client.at_end());
        CHECK(steady_clock::now() - start >= 2s);
        CHECK(status_shows(netns, ", up "));
    }
    Client client = connected(netns, 7);
    server.signal(SIGTERM);
    server.wait_for("waiting up to 3600 s for 1 connection");
    move_wall_clock(ten_years);
    client.send("still");
    CHECK(client.receive(5) == "still");
    move_wall_clock(-ten_years);
    client.shutdown_write();
    CHECK(client.at_end());
    CHECK(server.wait() == 0);
}

}  // namespace echo_server
