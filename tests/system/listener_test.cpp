// SPDX-License-Identifier: BSD-2-Clause
// What others do to the listening socket, or have done before it was passed on.
#include <doctest/doctest.h>

#include <csignal>
#include <list>

#include "child.h"
#include "client.h"
#include "server.h"

namespace {

void destroy_listener(const Netns& netns) { run_ok(netns, {"ss", "-K", "-tl", "sport = 7777"}); }

}  // namespace

TEST_CASE("listener: a server whose listener was destroyed from outside says so, and ends") {
    const Netns netns;
    for (const auto* threads : {"1", "3"}) {
        CAPTURE(threads);
        Server server(netns, {"--ports", "7", "--threads", threads});
        const BpfObjects objects(netns);
        std::list<Client> clients;
        for (int i = 0; i < 5; ++i) {
            clients.emplace_back(netns, "127.0.0.1", 7).send("x");
            REQUIRE(clients.back().receive(1) == "x");
        }
        destroy_listener(netns);
        CHECK(server.wait() == 1);
        CHECK(server.output().ends_with(
            "\necho-server: the listening socket was destroyed from outside (by 'ss -K', say): the ports are closed. The "
            "server ends, so that it can be started anew\n"));
        CHECK(objects.gone());
    }
}

TEST_CASE("listener: in a drain, a listener that was destroyed from outside counts as closed") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600", "--max-connections", "1"});
    std::list<Client> clients;
    for (int i = 0; i < 2; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    REQUIRE(clients.front().receive(1) == "x");
    server.signal(SIGTERM);
    server.wait_for("stopping: the ports are closed");
    destroy_listener(netns);
    clients.clear();
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}
