// SPDX-License-Identifier: BSD-2-Clause
// Calls that fail, mostly for want of memory.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <list>
#include <string>
#include <vector>

#include "base/descriptor_limit.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("limits: a connection that epoll refuses is cut off, and that is said") {
    const Netns netns;
    Server server(netns, {"--ports", "7"}, [] { fail_epoll("ENOSPC"); });
    Client client(netns, "127.0.0.1", 7);
    CHECK(client.at_end());
    CHECK(server.wait_for("epoll") ==
          "echo-server: epoll: No space left on device: a connection was cut off; fs.epoll.max_user_watches is the "
          "limit, if memory is not");
    CHECK(eventually([&] { return status_shows(netns, "0 open of at most"); }));
}

#ifdef NDEBUG  // sanitizers have their own allocators, which end the process
namespace {

void limit_memory(const Process& process, rlim_t max) {
    const rlimit limit{.rlim_cur = max, .rlim_max = RLIM_INFINITY};
    REQUIRE(::prlimit(process.pid(), RLIMIT_AS, &limit, nullptr) == 0);
}

rlim_t memory_of(const Process& process) { return static_cast<rlim_t>(process.status_kb("VmSize")) * 1024; }

}  // namespace

TEST_CASE("limits: out of memory it cuts off connections and goes on") {
    const Netns netns;
    // Root, because the test may set the memory limit of such a process. One heap only, because a thread's second heap
    // is large.
    Server server(netns, {"--ports", "7", "--user", "root"}, [] { ::setenv("MALLOC_ARENA_MAX", "1", 1); });
    Client other(netns, "127.0.0.1", 7);
    other.send("before");
    CHECK(other.receive(6) == "before");

    // Opened before memory is short: a newcomer could use the last memory, and would be refused in another way.
    std::list<Client> clients;
    for (int i = 0; i < 100; ++i) {
        auto& client = clients.emplace_back(netns, "127.0.0.1", 7);
        client.send("open");
        CHECK(client.receive(4) == "open");
    }

    limit_memory(server, memory_of(server) + 65536);
    // The server keeps up to 64 KiB for each client that does not read.
    const std::string much(16U << 20U, 'x');
    auto client = clients.begin();
    while (server.output().find("out of memory: a connection was cut off") == std::string::npos) {
        REQUIRE(client != clients.end());
        for (ssize_t sent = 1; sent > 0;) {
            pollfd ready{.fd = client->fd(), .events = POLLOUT, .revents = 0};
            if (::poll(&ready, 1, 100) != 1) break;
            sent = ::send(client->fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        }
        ++client;
    }
    other.send("during");
    CHECK(other.receive(6) == "during");

    limit_memory(server, RLIM_INFINITY);
    clients.clear();
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("limits: without memory for newcomers it lets them wait without spinning, and accepts again") {
    raise_descriptor_limit();
    const Netns netns;
    Server server(netns, {"--ports", "7", "--verbose", "--user", "root", "--threads", "2"});
    limit_memory(server, memory_of(server));
    // Idle clients, each of which needs a little memory, until the heap is empty.
    std::list<Client> idle;
    while (server.output().find(": Cannot allocate memory; ") == std::string::npos) {
        REQUIRE(idle.size() < 5000);
        idle.emplace_back(netns, "127.0.0.1", 7);
    }
    // An accepted client without memory is lost, so there must be more clients.
    for (int i = 0; i < 200; ++i) idle.emplace_back(netns, "127.0.0.1", 7);

    const auto start = std::chrono::steady_clock::now();
    const auto cpu = server.cpu_time();
    const auto said = count(server.output(), ": Cannot allocate memory; ");
    REQUIRE(eventually([&] { return count(server.output(), ": Cannot allocate memory; ") >= said + 2; }));
    CHECK((server.cpu_time() - cpu) * 4 < std::chrono::steady_clock::now() - start);  // a slow machine needs a tenth
    server.signal(SIGUSR1);
    CHECK(server.wait_for("SIGUSR1").ends_with("; the status is not logged"));

    limit_memory(server, RLIM_INFINITY);
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
        CHECK(complaints <= 2);  // max one a second
    }
}

}  // namespace echo_server
