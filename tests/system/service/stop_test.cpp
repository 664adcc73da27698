// SPDX-License-Identifier: BSD-2-Clause
// SIGINT, SIGTERM and SIGKILL.
#include <doctest/doctest.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <list>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("stop: with no connection open the server ends at once, and nothing is left") {
    const Netns netns;
    for (const int number : {SIGINT, SIGTERM}) {
        Server server(netns, {"--ports", "7"});
        const BpfObjects objects(netns);
        REQUIRE(echoes(netns, "127.0.0.1", 7));
        server.signal(number);
        CHECK(server.wait() == 0);
        CHECK(server.output().ends_with("\nstopped\n"));
        CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
        CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
        CHECK(objects.gone());
    }
}

TEST_CASE("stop: ports close, open connections may finish") {
    const Netns netns;
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77, "other");
    const TempFile file("7,77\n");
    Server server(netns, {"--ports-file", file.path(), "--drain-timeout", "3600", "--shadow-listeners"});
    Client client(netns, "127.0.0.1", 7);
    client.send("before");
    CHECK(client.receive(6) == "before");
    server.signal(SIGTERM);
    CHECK(server.next_line() == "stopping: the ports are closed; waiting up to 3600 s for 1 connection");
    CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
    CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
    CHECK(who_answers(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77) == "other");  // it has its port back
    CHECK(server.reload() == "echo-server: reload: the server is stopping; nothing is reloaded");
    client.send("after");
    CHECK(client.receive(5) == "after");
    client.shutdown_write();
    CHECK(client.at_end());
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}

TEST_CASE("stop: connections that clients had already completed are served") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    server.freeze();
    std::list<Client> queued;
    for (int i = 0; i < 100; ++i) queued.emplace_back(netns, "127.0.0.1", 7).send("queued");
    server.signal(SIGTERM);
    server.signal(SIGCONT);
    int served = 0;
    for (auto& client : queued) {
        client.shutdown_write();
        if (client.receive(6) == "queued" && client.at_end()) ++served;
    }
    CHECK(served == 100);
    CHECK(server.wait() == 0);
}

TEST_CASE("stop: without free descriptors, completed connections are served as descriptors become free") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--threads", "2", "--drain-timeout", "3600"}, [] { limit_descriptors(80); });
    std::list<Client> clients;
    for (int i = 0; i < 100; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    server.wait_for("open connections (");
    server.signal(SIGTERM);
    server.wait_for("stopping: the ports are closed");
    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 100);
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}

TEST_CASE("stop: connections that do not finish are cut off after the drain timeout") {
    const Netns netns;
    for (const std::string timeout : {"0", "1"}) {
        Server server(netns, {"--ports", "7", "--drain-timeout", timeout});
        Client client = connected(netns, 7);
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
        CHECK(server.output().ends_with("\nstopped; 1 connection cut off\n"));
        CHECK(client.at_end());
    }
}

TEST_CASE("stop: a second signal ends the wait") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
    const Client held = connected(netns, 7);
    server.signal(SIGTERM);
    server.wait_for("waiting up to 3600 s for 1 connection");
    server.signal(SIGINT);
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped; 1 connection cut off\n"));
}

TEST_CASE("stop: SIGUSR1 and SIGUSR2 do not end it") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    Client client(netns, "127.0.0.1", 7);
    for (const int number : {SIGUSR1, SIGUSR2}) {
        server.signal(number);
        client.send("x");
        CHECK(client.receive(1) == "x");
    }
    server.signal(SIGTERM);
    client.shutdown_write();
    CHECK(server.wait() == 0);
}

TEST_CASE("stop: a reader of the log that stalls does not stall the server") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--verbose"});
    int served = 0;
    // The lines are longer than a pipe's buffer.
    for (int i = 0; i < 3000; ++i)
        if (echoes(netns, "127.0.0.1", 7)) ++served;
    CHECK(served == 3000);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
}

TEST_CASE("stop: a reader of the log that goes away does not end the server") {
    const Netns netns;
    const Process server(netns, echo_server({"--ports", "7", "--verbose"}), [] {
        std::array<int, 2> ends{};
        if (::pipe(ends.data()) != 0) std::abort();
        ::close(ends[0]);
        ::dup2(ends[1], STDOUT_FILENO);
        ::dup2(ends[1], STDERR_FILENO);
    });
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));
    for (int i = 0; i < 10; ++i) CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
