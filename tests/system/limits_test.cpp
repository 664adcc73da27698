// SPDX-License-Identifier: BSD-2-Clause
// Accepting while the kernel is short of something.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <list>
#include <string>
#include <vector>

#include "child.h"
#include "client.h"
#include "server.h"

namespace {

using namespace std::chrono_literals;

std::size_t count(const std::string& text, const std::string& piece) {
    std::size_t found = 0;
    for (auto at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++found;
    return found;
}

}  // namespace

TEST_CASE("limits: with 64 descriptors and 500 clients it waits without spinning, and serves all in the end") {
    const Netns netns;
    Server server(netns, {"--ports", "7"}, [] { limit_descriptors(64); });
    std::list<Client> clients;
    for (int i = 0; i < 500; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    const auto complaint = server.wait_for("connections are open");
    CHECK(complaint.ends_with(" connections are open, as many as are allowed; newcomers wait"));

    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 500);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

#ifdef NDEBUG  // sanitizers have their own allocators, which end the process
namespace {

void limit_memory(const Process& process, rlim_t most) {
    const rlimit limit{.rlim_cur = most, .rlim_max = RLIM_INFINITY};
    REQUIRE(::prlimit(process.pid(), RLIMIT_AS, &limit, nullptr) == 0);
}

rlim_t memory_of(const Process& process) { return static_cast<rlim_t>(process.status_kb("VmSize")) * 1024; }

}  // namespace

TEST_CASE("limits: out of memory it cuts off connections and goes on") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--user", "root"});  // whose memory another root may limit
    Client other(netns, "127.0.0.1", 7);
    other.send("before");
    CHECK(other.receive(6) == "before");

    limit_memory(server, memory_of(server) + 65536);
    // Each that does not read makes the server keep up to 64 KiB.
    const std::string much(16U << 20U, 'x');
    std::list<Client> stalled;
    while (server.output().find("out of memory: a connection was cut off") == std::string::npos) {
        REQUIRE(stalled.size() < 100);
        auto& client = stalled.emplace_back(netns, "127.0.0.1", 7);
        for (ssize_t taken = 1; taken > 0;) {
            pollfd ready{.fd = client.fd(), .events = POLLOUT, .revents = 0};
            if (::poll(&ready, 1, 100) != 1) break;
            taken = ::send(client.fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        }
    }
    other.send("during");
    CHECK(other.receive(6) == "during");

    limit_memory(server, RLIM_INFINITY);
    stalled.clear();
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("limits: without memory for newcomers it lets them wait without spinning, and accepts again") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--verbose", "--user", "root"});
    limit_memory(server, memory_of(server));
    // Idle ones, each of which takes a little, until the heap has nothing left.
    std::list<Client> idle;
    for (int i = 0; i < 1000; ++i) idle.emplace_back(netns, "127.0.0.1", 7);
    REQUIRE(eventually([&] { return server.output().find(": Cannot allocate memory; ") != std::string::npos; }));

    const auto cpu = server.cpu_time();
    const auto said = count(server.output(), ": Cannot allocate memory; ");
    REQUIRE(eventually([&] { return count(server.output(), ": Cannot allocate memory; ") >= said + 2; }));
    CHECK(server.cpu_time() - cpu < 100ms);

    limit_memory(server, RLIM_INFINITY);
    CHECK(echoes(netns, "127.0.0.1", 7));
}
#endif

TEST_CASE("limits: no error of accept() ends the loop or makes it spin") {
    const Netns netns;
    struct Case {
        std::string error;
        int complaints;
    };
    const std::vector<Case> cases = {
        {"EMFILE", 1}, {"ENFILE", 1}, {"ENOBUFS", 1}, {"ENOMEM", 1}, {"EPERM", 1}, {"ECONNABORTED", 0},
    };
    for (const auto& one : cases) {
        CAPTURE(one.error);
        // The first three calls fail.
        Process server(netns, {"env", std::string("LD_PRELOAD=") + ACCEPT_FAULT, "ACCEPT_FAULT=" + one.error,
                               "ASAN_OPTIONS=verify_asan_link_order=0", ECHO_SERVER, "--ports", "7"});
        server.wait_for("  stop ");
        const auto cpu = server.cpu_time();
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(server.cpu_time() - cpu < 100ms);
        CHECK(count(server.output(), "accepting a connection: ") == static_cast<std::size_t>(one.complaints));
    }
}
