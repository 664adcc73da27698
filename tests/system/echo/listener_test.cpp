// SPDX-License-Identifier: BSD-2-Clause
// Changes from outside to the listening socket, before or after another process takes it over.
#include <doctest/doctest.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <list>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"
#include "support/service.h"

namespace echo_server {

namespace {

void destroy_listener(const Netns& netns) { run_ok(netns, {"ss", "-K", "-tl", "sport = 7777"}); }

}  // namespace

TEST_CASE("listener: a server whose listener was destroyed from outside logs that, and ends") {
    const Netns netns;
    for (const auto* threads : {"1", "3"}) {
        CAPTURE(threads);
        Server server(netns, {"--ports", "7", "--threads", threads});
        const BpfObjects objects(netns);
        std::list<Client> clients;
        for (int i = 0; i < 5; ++i) clients.push_back(connected(netns, 7));
        destroy_listener(netns);
        CHECK(server.wait() == 1);
        CHECK(server.output().ends_with(
            "\necho-server: the listening socket was destroyed from outside (for example by 'ss -K'): the ports are "
            "closed. The server ends, so that it can be started again\n"));
        CHECK(objects.gone());
    }
}

TEST_CASE("listener: after a restart or a replacement the backlog is the present net.core.somaxconn") {
    const Netns netns;
    const auto backlog = [&] { return run_ok(netns, {"sh", "-c", "ss -ltnH 'sport = 7777' | awk '{ print $3 }'"}); };
    set_sysctl(netns, "net/core/somaxconn", "100");
    Service service(netns);
    service.start({"--ports", "7"});
    CHECK(backlog() == "100\n");
    set_sysctl(netns, "net/core/somaxconn", "5000");
    service.stop();
    service.start({"--ports", "7"});
    CHECK(backlog() == "5000\n");
    set_sysctl(netns, "net/core/somaxconn", "200");
    const Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(backlog() == "200\n");
}

TEST_CASE("listener: where a socket can't get its options, --replace fails, and the old server goes on") {
    const Netns netns;
    const Server older(netns, {"--ports", "7"});
    const auto [code, output] =
        run(netns, echo_server({"--ports", "7", "--replace"}), [] { refuse_system_call(SYS_setsockopt, -1, EPERM); });
    CHECK(code == 1);
    CHECK(output == "echo-server: setting options of the listening socket: Operation not permitted\n");
    CHECK(echoes(netns, "127.0.0.1", 7));
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

}  // namespace echo_server
