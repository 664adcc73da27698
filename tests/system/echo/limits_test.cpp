// SPDX-License-Identifier: BSD-2-Clause
// Limits of descriptors, connections, stack and idle time.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <list>
#include <regex>
#include <string>
#include <thread>

#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

using namespace std::chrono_literals;

TEST_CASE("limits: with 80 descriptors and 500 clients it waits without spinning, and serves all in the end") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--threads", "2"}, [] { limit_descriptors(80); });
    std::list<Client> clients;
    for (int i = 0; i < 500; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    const auto complaint = server.wait_for("open connections");
    CHECK(complaint.starts_with("echo-server: the limit of "));
    CHECK(complaint.ends_with(") is reached; new connections wait"));
    CHECK(comes_to_rest(server));

    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 500);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("limits: the soft limit of descriptors is raised to the hard limit") {
    const Netns netns;
    Server server(netns, {"--ports", "7"}, [] { limit_descriptors_softly(64); });
    std::list<Client> clients;
    int served = 0;
    for (int i = 0; i < 200; ++i) {
        auto& client = clients.emplace_back(netns, "127.0.0.1", 7);
        client.send("x");
        if (client.receive(1) == "x") ++served;
    }
    CHECK(served == 200);
    CHECK(server.output().find("new connections wait") == std::string::npos);
}

TEST_CASE("limits: with --max-connections new connections wait in the backlog, at no cost, for one to end") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--max-connections", "2", "--drain-timeout", "3600"});
    std::list<Client> clients;
    for (int i = 0; i < 5; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    CHECK(server.wait_for("open") == "echo-server: the limit of open connections (2) is reached; new connections wait");
    // A client may be connected before the kernel has handled its last segment of the handshake.
    CHECK(eventually([&] { return status_shows(netns, ", 3 of at most 4096 waiting, 0 not completed\n"); }));
    CHECK(status_shows(netns, "  connections  2 open of at most 2, 2 in all, "));
    CHECK(comes_to_rest(server));
    // A stop serves the waiting clients too, at most two at a time.
    server.signal(SIGTERM);
    CHECK(server.wait_for("stopping") ==
          "stopping: the ports are closed; waiting up to 3600 s for 2 connections, and for clients that are not "
          "accepted yet");
    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 5);
    CHECK(server.wait() == 0);
}

TEST_CASE("limits: too few descriptors for --max-connections, or for one connection, is an error at the start") {
    const Netns netns;
    const auto check = [&](const Command& arguments, const std::string& says, const std::string& hint) {
        const auto result = run(netns, echo_server(arguments), [] { limit_descriptors(30); });
        const auto& output = result.output;
        CAPTURE(output);
        CHECK(result.code == 1);
        CHECK(std::regex_match(output, std::regex("echo-server: " + says +
                                                  R"( needs \d+ descriptors, \d+ of them for echo-server itself, and )"
                                                  R"(the )"
                                                  R"(limit is 30: raise it \('ulimit -n \d+', or LimitNOFILE in the )"
                                                  R"(systemd unit\))" +
                                                  hint)));
    };
    check({"--ports", "7", "--threads", "1", "--max-connections", "100"}, "--max-connections 100",
          ", or allow fewer connections\n");
    check({"--ports", "7", "--threads", "1"}, "even one connection", "\n");
}

#ifdef NDEBUG  // sanitizers need descriptors too
// Alone, because a start looks at the maps of every server on the machine that is just ending.
TEST_CASE(
    "limits: each number of descriptors that is too low is an error in one line, which has a number that is enough" *
    doctest::test_suite("alone")) {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const Command arguments{"--ports", "7", "--threads", "2", "--pin", bpffs.path(), "--replace"};
    const auto leave_descriptors = [](unsigned long max) {
        ::close_range(STDERR_FILENO + 1, ~0U, 0);  // the test runner may leave some open
        limit_descriptors(max);
    };
    unsigned long needed = 0;
    for (unsigned long limit = 4; needed == 0 || limit < needed; ++limit) {
        CAPTURE(limit);
        const auto result = run(netns, echo_server(arguments), [&] { leave_descriptors(limit); });
        CAPTURE(result.output);
        REQUIRE(result.code == 1);
        REQUIRE(result.output.starts_with("echo-server: "));
        REQUIRE(count(result.output, "\n") == 1);
        std::smatch match;
        const std::regex says(
            R"(echo-server: even one connection needs (\d+) descriptors, \d+ of them for echo-server itself, and )"
            R"(the limit is \d+: raise it \('ulimit -n (\d+)', or LimitNOFILE in the systemd unit\)\n)");
        if (!std::regex_match(result.output, match, says)) {
            REQUIRE(needed == 0);
            continue;
        }
        CHECK(match[1] == match[2]);
        needed = std::stoul(match[1]);
    }
    Server older(netns, arguments, [&] { leave_descriptors(needed); });
    CHECK(echoes(netns, "127.0.0.1", 7));
    // The newer process has the older one's listener and eventfd open as well.
    const Server newer(netns, arguments, [&] { leave_descriptors(needed + 8); });
    CHECK(older.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
}
#endif

#ifdef NDEBUG  // sanitizers need more
TEST_CASE("limits: a stack of 256 KiB is enough") {
    const Netns netns;
    const auto little = [] {
        const rlimit limit{.rlim_cur = 256 << 10, .rlim_max = 256 << 10};
        if (::setrlimit(RLIMIT_STACK, &limit) != 0) std::abort();
    };
    const TempFile file("7\n");
    Server older(netns, {"--ports-file", file.path(), "--threads", "4"}, little);
    const auto data = bytes_of('A', 1U << 20U);
    CHECK(echoes(netns, "127.0.0.1", 7, data));
    file.write("1-30000\n");
    CHECK(older.reload().ends_with("; 30000 ports open"));
    older.signal(SIGUSR1);
    older.wait_for("  dropped  ");
    for (const Command& arguments : {Command{"status"}, Command{"status", "--json"}, Command{"status", "--prometheus"}})
        CHECK(run(netns, echo_server(arguments), little).code == 0);
    const Server newer(netns, {"--ports-file", file.path(), "--replace"}, little);
    CHECK(older.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 30000, data));
}
#endif

TEST_CASE("limits: --idle-timeout ends a connection on which nothing moves, and no other") {
    const Netns netns;
    const Server server(netns, {"--ports", "7", "--idle-timeout", "2"});
    Client silent(netns, "127.0.0.1", 7);
    const Client stalled(netns, "127.0.0.1", 7);  // it sends more than it reads
    const std::string much(16U << 20U, 'x');
    while (::send(stalled.fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
    Client busy(netns, "127.0.0.1", 7);
    const auto start = std::chrono::steady_clock::now();
    const auto move = [&] {
        busy.send("x");
        REQUIRE(busy.receive(1) == "x");
    };
    for (; std::chrono::steady_clock::now() - start < 5s; std::this_thread::sleep_for(50ms)) move();
    CHECK(silent.at_end());
    CHECK(eventually([&] {
        move();
        return std::regex_search(run_ok(netns, echo_server({"status"})),
                                 std::regex(R"(  1 open of at most \d+, 3 in all, 0 out of memory, 2 timed out\n)"));
    }));
}

}  // namespace echo_server
