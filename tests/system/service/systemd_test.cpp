// SPDX-License-Identifier: BSD-2-Clause
// The messages to systemd, and the socket from systemd. systemd does not run here: a socket of the test plays its part.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <thread>
#include <vector>

#include "support/client.h"
#include "support/server.h"
#include "support/service_manager.h"

namespace echo_server {

TEST_CASE("systemd: it is told of the start, each reload and the stop") {
    const Netns netns;
    ServiceManager systemd(netns);
    const TempFile file("7,77\n");
    Server server(netns, {"--ports-file", file.path()}, ServiceManager::start);
    CHECK(systemd.receive() == "READY=1\nSTATUS=2 TCP ports open: 7,77");
    const auto reloads = [&](const std::string& status) {
        server.signal(SIGHUP);
        CHECK(std::regex_match(systemd.receive(), std::regex("RELOADING=1\nMONOTONIC_USEC=\\d+")));
        CHECK(systemd.receive() == "READY=1\nSTATUS=" + status);
    };
    file.write("8\n");
    reloads("1 TCP port open: 8");
    file.write("nonsense\n");
    reloads("1 TCP port open: 8; the last reload failed: " + file.path() +
            ":1: 'nonsense' is not allowed here: write ports (7), ranges (1000-2000) and exclusions (!22) from 1 to "
            "65535, with commas between them");
    file.write("8\n");
    reloads("1 TCP port open: 8");
    Client client(netns, "127.0.0.1", 8);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    server.signal(SIGTERM);
    CHECK(systemd.receive() == "STOPPING=1\nSTATUS=Draining: 1 connection open");
    client.shutdown_write();
    CHECK(systemd.receive() == "STATUS=Stopped");
}

namespace {

// For Process's in_child: a service that systemd restarts if it gives no answer for so long.
void start_with_watchdog() {
    ServiceManager::start();
    ::setenv("WATCHDOG_USEC", "200000", 1);
    ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
}

constexpr auto answer = "WATCHDOG=1";

// More than the kernel keeps for a reader that comes late (net.unix.max_dgram_qlen).
constexpr int some_new_ones = 15;

void wait_for_answers(ServiceManager& systemd, int count) {
    for (int i = 0; i < count; ++i) systemd.wait_for(answer);
}

std::vector<pid_t> threads_of(const Process& process) {
    std::vector<pid_t> threads;
    for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process.pid())))
        threads.push_back(std::stoi(entry.path().filename()));
    return threads;
}

}  // namespace

TEST_CASE("systemd: its watchdog gets an answer again and again, under load and in a drain") {
    const Netns netns;
    ServiceManager systemd(netns);
    const Server server(netns, {"--ports", "7", "--threads", "2", "--drain-timeout", "3600"}, start_with_watchdog);
    wait_for_answers(systemd, 5);
    Client client(netns, "127.0.0.1", 7);
    std::jthread stream([&](const std::stop_token& stop) {
        const std::string data(1U << 20U, 's');
        while (!stop.stop_requested()) {
            client.send(data);
            if (client.receive(data.size()) != data) return;
        }
    });
    wait_for_answers(systemd, some_new_ones);
    server.signal(SIGTERM);
    systemd.wait_for("STOPPING=1");
    wait_for_answers(systemd, 5);
    stream = {};
    CHECK(client.error() == 0);
}

TEST_CASE("systemd: its watchdog gets no answer while one thread hangs") {
    const Netns netns;
    const Netns another;
    ServiceManager systemd(netns);
    ServiceManager clock(another);
    const Server server(netns, {"--ports", "7", "--threads", "3"}, start_with_watchdog);
    const Server healthy(another, {"--ports", "7", "--threads", "3"}, start_with_watchdog);
    // Answers from now until the main thread reloads.
    const auto answers = [&] {
        int count = 0;
        server.signal(SIGHUP);
        for (std::string message; !message.starts_with("RELOADING=1"); message = systemd.receive())
            count += message == answer ? 1 : 0;
        return count;
    };
    int workers = 0;
    for (const auto thread : threads_of(server)) {
        if (thread == server.pid()) continue;  // it gives the answers
        ++workers;
        wait_for_answers(systemd, 2);
        REQUIRE(::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0);
        REQUIRE(::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) == 0);
        REQUIRE(::waitpid(thread, nullptr, __WALL) == thread);
        answers();
        wait_for_answers(clock, some_new_ones);
        CHECK(answers() <= 1);  // to what the thread has done before
        REQUIRE(::ptrace(PTRACE_DETACH, thread, nullptr, nullptr) == 0);
    }
    CHECK(workers == 2);
    wait_for_answers(systemd, 2);
}

TEST_CASE("systemd: without a watchdog, or with another process's, there is no answer") {
    const Netns netns;
    const Netns another;
    ServiceManager systemd(netns);
    ServiceManager clock(another);
    const Server server(netns, {"--ports", "7"}, [] {
        start_with_watchdog();
        ::setenv("WATCHDOG_PID", "1", 1);
    });
    const Server healthy(another, {"--ports", "7"}, start_with_watchdog);
    wait_for_answers(clock, 5);
    server.signal(SIGTERM);
    for (std::string message; !message.starts_with("STOPPING=1"); message = systemd.receive()) CHECK(message != answer);
}

TEST_CASE("systemd: a start that fails is never called ready, and says why") {
    const Netns netns;
    ServiceManager systemd(netns);
    CHECK(run(netns, echo_server({"--ports-file", "/nowhere"}), ServiceManager::start).code == 1);
    CHECK(systemd.receive().starts_with("STATUS=Failed: reading ports file /nowhere: "));
    const Server server(netns, {"--ports", "9"}, ServiceManager::start);
    CHECK(systemd.receive() == "READY=1\nSTATUS=1 TCP port open: 9");
}

TEST_CASE("systemd: a server that is replaced says so") {
    const Netns netns;
    ServiceManager systemd(netns);
    const Server old_server(netns, {"--ports", "7"}, ServiceManager::start);
    systemd.wait_for("READY=1");
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    const Server new_server(netns, {"--ports", "7", "--replace"});
    CHECK(systemd.receive() == "STOPPING=1\nSTATUS=Replaced by another process, draining: 1 connection open");
    old_server.signal(SIGTERM);
    CHECK(systemd.receive() == "STATUS=Replaced by another process; 1 connection cut off");
}

TEST_CASE("systemd: a socket that it passes is used instead of one of our own") {
    const Netns netns;
    const auto activate = [&](const std::string& listen) {
        return std::make_unique<Process>(netns,
                                         Command{"systemd-socket-activate", "-l", listen, ECHO_SERVER, "--ports", "7"});
    };
    SUBCASE("for both families") {
        const auto server = activate("[::ffff:127.0.0.1]:9000");
        // The first connection starts it.
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 9000) == 0; }));
        CHECK(server->wait_for("  socket ").find("127.0.0.1:9000, the only one") != std::string::npos);
        server->wait_for("  stop ");
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(echoes(netns, "::1", 7));
        CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
    }
    SUBCASE("for IPv4 alone") {
        const auto server = activate("127.0.0.1:9000");
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 9000) == 0; }));
        server->wait_for("the socket is an IPv4 one: clients on IPv6 are refused");
        server->wait_for("  stop ");
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
    SUBCASE("for IPv6 alone, which is refused") {
        const auto server = activate("[::1]:9000");
        REQUIRE(eventually([&] { return try_connect(netns, "::1", 9000) == 0; }));
        CHECK(
            server->wait_for("echo-server: ") ==
            "echo-server: taking the socket passed by systemd: it would refuse IPv4 clients; let the socket unit have "
            "'ListenStream=[::ffff:127.0.0.1]:7777' and 'BindIPv6Only=both'");
        CHECK(server->wait() == 1);
    }
    SUBCASE("beside a server that has another, which has to be stopped") {
        const Server running(netns, {"--ports", "7"});
        const auto server = activate("[::ffff:127.0.0.1]:9000");
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 9000) == 0; }));
        CHECK(server->wait_for("echo-server: ") ==
              fmt::format(
                  "echo-server: an echo-server runs in this network namespace already (process {}): stop it first",
                  running.pid()));
        CHECK(server->wait() == 1);
    }
    SUBCASE("more than one, which is refused") {
        Process server(netns, {"systemd-socket-activate", "-l", "9000", "-l", "9001", ECHO_SERVER, "--ports", "7"});
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 9000) == 0; }));
        CHECK(
            server.wait_for("echo-server: ") ==
            "echo-server: taking the socket passed by systemd: there are 2; let the socket unit have one ListenStream");
        CHECK(server.wait() == 1);
    }
}

TEST_CASE("systemd: for --check, a socket that it has passed is no obstacle, whatever its address") {
    const Netns netns;
    Process server(netns, {"systemd-socket-activate", "-l", "[::]:7777", ECHO_SERVER, "--ports", "7"});
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7777) == 0; }));
    server.wait_for("  stop ");
    CHECK(run(netns, echo_server({"--ports", "7,9", "--check"})).code == 0);
}

TEST_CASE("systemd: a socket that was destroyed before it was passed on needs a restart of its unit") {
    const Netns netns;
    const auto result = run(netns, echo_server({"--ports", "7"}), [] {
        constexpr int first_passed = 3;
        const int destroyed = ::socket(AF_INET6, SOCK_STREAM, 0);  // like a destroyed socket, it does not listen
        ::dup2(destroyed, first_passed);
        ::setenv("LISTEN_FDS", "1", 1);
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    });
    CHECK(result.code == 1);
    CHECK(
        result.output ==
        "echo-server: taking the socket passed by systemd: it does not listen; let the socket unit have "
        "'ListenStream=[::ffff:127.0.0.1]:7777' and 'BindIPv6Only=both'; if it has that, restart the unit ('systemctl "
        "restart echo-server.socket')\n");
}

}  // namespace echo_server
