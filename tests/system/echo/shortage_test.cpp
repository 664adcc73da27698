// SPDX-License-Identifier: BSD-2-Clause
// Calls that fail, mostly because there is no memory.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <csignal>
#include <list>
#include <string>
#include <vector>

#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("limits: a connection that epoll refuses is cut off, and the limit is named if that is the reason") {
    const Netns netns;
    const auto complaint = [&](const std::string& error) {
        Server server(netns, {"--ports", "7"}, [&] { fail_epoll(error); });
        Client client(netns, "127.0.0.1", 7);
        client.receive(1);
        CHECK(client.error() == ECONNRESET);
        CHECK(eventually([&] { return status_shows(netns, "0 open of at most"); }));
        return server.wait_for("epoll");
    };
    CHECK(complaint("ENOSPC") ==
          "echo-server: epoll: No space left on device: a connection was cut off; raise the limit of this user "
          "('sysctl -w fs.epoll.max_user_watches=N')");
    CHECK(complaint("ENOMEM") == "echo-server: epoll: Cannot allocate memory: a connection was cut off");
}

#ifdef NDEBUG  // sanitizers have their own allocators, which end the process
TEST_CASE("limits: out of memory it cuts off connections and goes on") {
    const Netns netns;
    const TempFile shortage("");
    Server server(netns, {"--ports", "7"}, [&] { fail_memory(shortage.path()); });
    Client other = connected(netns, 7);
    std::list<Client> clients;
    for (int i = 0; i < 10; ++i) clients.push_back(connected(netns, 7));

    shortage.write("now");
    // The server keeps up to 64 KiB for each client that does not read, if it can.
    const std::string much(16U << 20U, 'x');
    const auto fill = [&](const Client& client) {
        pollfd ready{.fd = client.fd(), .events = POLLOUT, .revents = 0};
        while (::poll(&ready, 1, 100) == 1 &&
               ::send(client.fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
            continue;
    };
    for (const auto& client : clients) fill(client);
    CHECK(eventually(
        [&] { return server.output().find("out of memory: a connection was cut off") != std::string::npos; }));
    other.send("during");
    CHECK(other.receive(6) == "during");

    shortage.write("");
    clients.clear();
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("limits: without memory for new connections they wait, it does not spin, and it accepts them later") {
    const Netns netns;
    const TempFile shortage("");
    Server server(netns, {"--ports", "7", "--threads", "2"}, [&] { fail_memory(shortage.path()); });
    Client other = connected(netns, 7);

    const auto start = std::chrono::steady_clock::now();
    const auto cpu = server.cpu_time();
    shortage.write("now");
    // Clients that are accepted without memory are lost, ten a second.
    std::list<Client> idle;
    for (int i = 0; i < 200; ++i) idle.emplace_back(netns, "127.0.0.1", 7);
    const auto complaints = [&] { return count(server.output(), "accepting a connection: Cannot allocate memory; "); };
    REQUIRE(eventually([&] { return complaints() >= 3; }));
    CHECK((server.cpu_time() - cpu) * 4 <
          std::chrono::steady_clock::now() - start);  // even a slow machine needs only a tenth
    other.send("during");
    CHECK(other.receive(6) == "during");
    server.signal(SIGUSR1);
    CHECK(server.wait_for("SIGUSR1").ends_with("; the status is not logged"));

    shortage.write("");
    CHECK(echoes(netns, "127.0.0.1", 7));
    server.signal(SIGUSR1);
    server.wait_for("  dropped  ");
}
#endif

TEST_CASE("limits: no error of accept() ends the loop or makes it spin") {
    const Netns netns;
    struct Case {
        std::string error;
        bool complains;
    };
    const std::vector<Case> cases = {
        {"EMFILE", true}, {"ENFILE", true}, {"ENOBUFS", true},
        {"ENOMEM", true}, {"EPERM", true},  {"ECONNABORTED", false},
    };
    for (const auto& row : cases) {
        CAPTURE(row.error);
        // The fault lasts for half a second; after more than twenty calls the server is aborted.
        Server server(netns, {"--ports", "7"}, [&] { fail_accept(row.error); });
        CHECK(echoes(netns, "127.0.0.1", 7));
        const auto complaints = count(server.output(), "accepting a connection: ");
        CHECK((complaints > 0) == row.complains);
        CHECK(complaints <= 2);  // at most one a second
    }
}

}  // namespace echo_server
