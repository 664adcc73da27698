// SPDX-License-Identifier: BSD-2-Clause
// The messages to systemd. systemd does not run here: a socket of the test plays its part.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/service.h"
#include "support/storm.h"

namespace echo_server {

TEST_CASE("systemd: gets a message at the start, at each reload and at the stop") {
    const Netns netns;
    Systemd systemd(netns);
    const TempFile file("7,77\n");
    Server server(netns, {"--ports-file", file.path()}, Systemd::start);
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
    Client client = connected(netns, 8);
    server.signal(SIGTERM);
    CHECK(systemd.receive() == "STOPPING=1\nSTATUS=Draining: 1 connection open");
    client.shutdown_write();
    CHECK(systemd.receive() == "STATUS=Stopped");
}

TEST_CASE("systemd: gets the ports that a range leaves out, gives back and takes back, and the last failure") {
    const Netns netns;
    Systemd systemd(netns);
    const TempFile file("7,20-30\n");
    const NamedServer ssh(netns, NamedServer::Protocol::tcp, "127.0.0.1", 22, "ssh");
    Server server(netns, {"--ports-file", file.path()}, Systemd::start);
    CHECK(systemd.receive() == "READY=1\nSTATUS=11 TCP ports open: 7,20-21,23-30; left out: 22 (system-tests)");
    file.write("nonsense\n");
    server.reload();
    CHECK(systemd.receive().starts_with("RELOADING=1\n"));
    CHECK(systemd.receive().find("23-30; left out: 22 (another program listens); the last reload failed: ") !=
          std::string::npos);
    {
        const NamedServer program(netns, NamedServer::Protocol::tcp, "127.0.0.1", 29, "program");
        const auto status = systemd.receive();
        CHECK(
            status.starts_with("STATUS=10 TCP ports open: 7,20-21,23-28,30; left out: 22,29 (another program listens); "
                               "the last reload failed: "));
    }
    file.write("7,20-30\n");
    server.reload();
    CHECK(systemd.receive().starts_with("RELOADING=1\n"));
    CHECK(systemd.receive() ==
          "READY=1\nSTATUS=10 TCP ports open: 7,20-21,23-28,30; left out: 22,29 (another program listens)");
    CHECK(systemd.receive() == "STATUS=11 TCP ports open: 7,20-21,23-30; left out: 22 (another program listens)");
}

TEST_CASE("systemd: a reload during the start runs after it") {
    const Netns netns;
    Systemd systemd(netns);
    const TempFile file("7\n");
    const auto flag = file.path() + ".hang";
    std::ofstream(flag).close();
    Process server(netns, echo_server({"--ports-file", file.path()}), [&] {
        hang_at(file.path());
        Systemd::start();
    });
    REQUIRE(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
    server.signal(SIGHUP);
    std::filesystem::remove(flag);
    CHECK(systemd.receive() == "READY=1\nSTATUS=1 TCP port open: 7");
    CHECK(systemd.receive().starts_with("RELOADING=1\n"));
    CHECK(systemd.receive() == "READY=1\nSTATUS=1 TCP port open: 7");
    CHECK(server.wait_for("reloaded").ends_with(": nothing changed; 1 port open"));
}

namespace {

// For Process's in_child: a service that systemd restarts if it gives no answer for so long.
void start_with_watchdog() {
    Systemd::start();
    ::setenv("WATCHDOG_USEC", "200000", 1);
    ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
}

constexpr auto answer = "WATCHDOG=1";

// More than the kernel keeps for a late reader (net.unix.max_dgram_qlen).
constexpr int some_new_ones = 15;

void wait_for_answers(Systemd& systemd, int count) {
    for (int i = 0; i < count; ++i) systemd.wait_for(answer);
}

// All but the housekeeper: it may hang with a file system, and a server need not end for that.
std::vector<pid_t> threads_of(const Process& process) {
    std::vector<pid_t> threads;
    for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", process.pid()))) {
        std::string name;
        std::ifstream(entry.path() / "comm") >> name;
        if (name != "housekeeper") threads.push_back(std::stoi(entry.path().filename()));
    }
    return threads;
}

}  // namespace

TEST_CASE("systemd: its watchdog gets an answer again and again, under load and in a drain") {
    const Netns netns;
    Systemd systemd(netns);
    const Server server(netns, {"--ports", "7", "--threads", "2", "--drain-timeout", "3600"}, start_with_watchdog);
    wait_for_answers(systemd, 5);
    Client client(netns, "127.0.0.1", 7);
    const std::string data(1U << 20U, 's');
    bool identical = true;
    Storm stream([&] {
        client.send(data);
        identical = identical && client.receive(data.size()) == data;
    });
    wait_for_answers(systemd, some_new_ones);
    server.signal(SIGTERM);
    systemd.wait_for("STOPPING=1");
    wait_for_answers(systemd, 5);
    stream.stop();
    CHECK(client.error() == 0);
    CHECK(identical);
}

TEST_CASE("systemd: its watchdog gets no answer while one thread hangs") {
    const Netns netns;
    const Netns another;
    Systemd systemd(netns);
    Systemd clock(another);
    const Server server(netns, {"--ports", "7", "--threads", "3"}, start_with_watchdog);
    const Server healthy(another, {"--ports", "7", "--threads", "3"}, start_with_watchdog);
    // Answers from now until the housekeeper reloads.
    const auto answers = [&] {
        int count = 0;
        server.signal(SIGHUP);
        for (std::string message; !message.starts_with("RELOADING=1"); message = systemd.receive())
            count += message == answer ? 1 : 0;
        return count;
    };
    int workers = 0;
    for (const auto thread : threads_of(server)) {
        if (thread == server.pid()) continue;  // this thread gives the answers
        ++workers;
        wait_for_answers(systemd, 2);
        REQUIRE(::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) == 0);
        REQUIRE(::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) == 0);
        REQUIRE(::waitpid(thread, nullptr, __WALL) == thread);
        answers();
        wait_for_answers(clock, some_new_ones);
        CHECK(answers() <= 1);  // for what the thread did before
        REQUIRE(::ptrace(PTRACE_DETACH, thread, nullptr, nullptr) == 0);
    }
    CHECK(workers == 2);
    wait_for_answers(systemd, 2);
}

TEST_CASE("systemd: without a watchdog, or with another process's, there is no answer") {
    const Netns netns;
    const Netns another;
    Systemd systemd(netns);
    Systemd clock(another);
    const Server server(netns, {"--ports", "7"}, [] {
        start_with_watchdog();
        ::setenv("WATCHDOG_PID", "1", 1);
    });
    const Server healthy(another, {"--ports", "7"}, start_with_watchdog);
    wait_for_answers(clock, 5);
    server.signal(SIGTERM);
    for (std::string message; !message.starts_with("STOPPING=1"); message = systemd.receive()) CHECK(message != answer);
}

TEST_CASE("systemd: a start that fails is never reported as ready, and says why") {
    const Netns netns;
    Systemd systemd(netns);
    CHECK(run(netns, echo_server({"--ports-file", "/nowhere"}), Systemd::start).code == 1);
    CHECK(systemd.receive().starts_with("STATUS=Failed: reading ports file /nowhere: "));
    const Server server(netns, {"--ports", "9"}, Systemd::start);
    CHECK(systemd.receive() == "READY=1\nSTATUS=1 TCP port open: 9");
}

TEST_CASE("systemd: a server that is replaced reports that") {
    const Netns netns;
    Systemd systemd(netns);
    const Server old_server(netns, {"--ports", "7"}, Systemd::start);
    systemd.wait_for("READY=1");
    const Client held = connected(netns, 7);
    const Server new_server(netns, {"--ports", "7", "--replace"});
    CHECK(systemd.receive() == "STOPPING=1\nSTATUS=Replaced by another process, draining: 1 connection open");
    old_server.signal(SIGTERM);
    CHECK(systemd.receive() == "STATUS=Replaced by another process; 1 connection cut off");
}

}  // namespace echo_server
