// SPDX-License-Identifier: BSD-2-Clause
// A server that has lost its program or its socket: 'status' shows that, and another server takes over.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <string>

#include "support/client.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

namespace {

using nlohmann::json;

void destroy_listener(const Netns& netns) { run_ok(netns, {"ss", "-K", "-tl", "sport = 7777"}); }

}  // namespace

TEST_CASE("state: a server whose program was detached is shown in that state, and --replace takes over from it") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    detach_program(netns);
    REQUIRE(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);

    const auto shown = only_status(netns);
    CHECK(shown["pid"] == older.pid());
    CHECK(shown["serving"] == false);
    CHECK(shown["state"] == "detached");
    CHECK(shown["ports"] == nullptr);
    CHECK(shown["listener"]["address"] == "127.0.0.1:7777");
    CHECK(shown["connections"]["open"] == 1);
    CHECK(status_shows(netns, ", with its program detached: its ports are closed\n"));
    const auto metrics = run_ok(netns, echo_server({"status", "--prometheus"}));
    CHECK(metrics.find("\necho_server_serving{listener=\"127.0.0.1:7777\"} 0\n") != std::string::npos);

    const auto second = run(netns, echo_server({"--ports", "7"}));
    CHECK(second.code == 1);
    CHECK(
        second.output ==
        fmt::format("echo-server: an echo-server runs in this network namespace already (process {}): --replace takes "
                    "over from it, and refuses no new connection; or stop it first, or choose other ports, and another "
                    "--listen port\n",
                    older.pid()));
    Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(newer.output().find(fmt::format("  replaces   process {}, which drains\n", older.pid())) !=
          std::string::npos);
    CHECK(echoes(netns, "127.0.0.1", 7));
    client.send("y");
    CHECK(client.receive(1) == "y");
    client.shutdown_write();
    CHECK(older.wait() == 0);
}

TEST_CASE("state: a server whose socket is gone is shown in that state, and --replace takes over with a new socket") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    older.freeze();  // otherwise it would notice, and end
    destroy_listener(netns);
    const auto shown = only_status(netns);
    CHECK(shown["pid"] == older.pid());
    CHECK(shown["serving"] == false);
    CHECK(shown["state"] == "without socket");
    CHECK(shown["ports"] == nullptr);
    CHECK(shown["listener"] == nullptr);
    CHECK(status_shows(netns, ", without its listening socket: its ports are closed\n"));
    CHECK(run(netns, echo_server({"--ports", "7"})).output.find(": --replace takes over from it") != std::string::npos);

    const Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(echoes(netns, "127.0.0.1", 7));
    older.signal(SIGCONT);
    CHECK(older.wait() >= 0);  // it drains when told, or when accept(2) finds that its socket is gone
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(only_status(netns)["state"] == "serving");
}

}  // namespace echo_server
