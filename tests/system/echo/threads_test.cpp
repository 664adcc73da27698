// SPDX-License-Identifier: BSD-2-Clause
// Connections spread over several threads.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <list>
#include <regex>
#include <string>
#include <vector>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

// The bytes that each thread of the server has received.
std::vector<unsigned long> received_by_thread(const Netns& netns) {
    const auto counters = BpfObjects(netns).maps.at("echo_counters");
    const auto dump = run_ok(netns, {"bpftool", "map", "dump", "id", counters});
    const std::regex pattern(R"("received": (\d+))");
    std::vector<unsigned long> received;
    for (std::sregex_iterator found(dump.begin(), dump.end(), pattern); found != std::sregex_iterator(); ++found)
        received.push_back(std::stoul((*found)[1]));
    return received;
}

void use_one_cpu() {
    cpu_set_t allowed;
    if (::sched_getaffinity(0, sizeof(allowed), &allowed) != 0) std::abort();
    std::size_t cpu = 0;
    while (!CPU_ISSET(cpu, &allowed)) ++cpu;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (::sched_setaffinity(0, sizeof(one), &one) != 0) std::abort();
}

}  // namespace

TEST_CASE("threads: each gets its share of the connections, and status shows the sum") {
    const Netns netns;
    const Server server(netns, {"--ports", "7", "--threads", "3"});
    std::list<Client> clients;
    for (int i = 0; i < 30; ++i) {
        auto& client = clients.emplace_back(netns, "127.0.0.1", 7);
        client.send("twelve bytes");
        REQUIRE(client.receive(12) == "twelve bytes");
    }
    CHECK(received_by_thread(netns) == std::vector<unsigned long>{120, 120, 120});
    CHECK(status_shows(netns, "connections  30 open of at most"));
    // The server counts the last bytes a moment after the client has them.
    CHECK(eventually([&] { return status_shows(netns, "bytes        360 received, 360 sent\n"); }));

    clients.clear();
    REQUIRE(eventually([&] { return status_shows(netns, "connections  0 open of at most"); }));
    CHECK(status_shows(netns, ", 30 in all, 0 out of memory, 0 timed out\n"));
}

TEST_CASE("threads: unless told otherwise there is one for each CPU that the server may use") {
    const Netns netns;
    cpu_set_t allowed;
    REQUIRE(::sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    {
        const Server server(netns, {"--ports", "7"});
        CHECK(received_by_thread(netns).size() == static_cast<std::size_t>(CPU_COUNT(&allowed)));
    }
    const Server server(netns, {"--ports", "7"}, use_one_cpu);
    CHECK(received_by_thread(netns).size() == 1);
}

TEST_CASE("threads: a drain waits for the connections of all threads, and no longer") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--threads", "4", "--drain-timeout", "3600"});
    std::list<Client> clients;
    for (int i = 0; i < 8; ++i) clients.push_back(connected(netns, 7));
    server.signal(SIGTERM);
    CHECK(server.wait_for("stopping").ends_with("waiting up to 3600 s for 8 connections"));
    for (auto& client : clients) {
        client.send("still");
        CHECK(client.receive(5) == "still");
        client.shutdown_write();
        CHECK(client.at_end());
    }
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}

TEST_CASE("threads: at --max-connections the end of a connection in any thread makes room for the next") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--threads", "4", "--max-connections", "4"});
    std::list<Client> clients;
    for (int i = 0; i < 40; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    server.wait_for("the limit of open connections (4) is reached");
    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 40);
}

TEST_CASE("threads: more than the system allows is an error, which says what to change") {
    const Netns netns;
    const auto few_processes = [] {
        const rlimit limit{.rlim_cur = 1, .rlim_max = 1};
        if (::setrlimit(RLIMIT_NPROC, &limit) != 0) std::abort();
    };
    // This user has no other process that would count.
    const auto refused = run(netns, echo_server({"--ports", "7", "--threads", "2", "--user", "54322"}), few_processes);
    CHECK(refused.code == 1);
    // LeakSanitizer adds a line: it gets no thread either.
    CHECK(refused.output.starts_with(
        "echo-server: starting a thread: Resource temporarily unavailable; allow this user more threads ('ulimit -u', "
        "or TasksMax in the systemd unit), or lower --threads\n"));
    const auto no_memory = [] { refuse_system_call(SYS_epoll_ctl, -1, ENOMEM); };
    const auto without = run(netns, echo_server({"--ports", "7", "--threads", "2"}), no_memory);
    CHECK(without.code == 1);
    CHECK(without.output == "echo-server: starting 2 threads: Cannot allocate memory\n");
    const auto full_host = [] { refuse_system_call(SYS_epoll_create1, -1, ENFILE); };
    const auto on_full_host = run(netns, echo_server({"--ports", "7", "--threads", "2"}), full_host);
    CHECK(on_full_host.code == 1);
    CHECK(on_full_host.output.starts_with("echo-server: starting 2 threads: "));
    CHECK(on_full_host.output.find("of the host ('sysctl ") != std::string::npos);
    const auto few_descriptors = [] { limit_descriptors(64); };
    const auto failed = run(netns, echo_server({"--ports", "7", "--threads", "100"}), few_descriptors);
    CHECK(failed.code == 1);
    CHECK(
        failed.output.starts_with("echo-server: starting 100 threads: Too many open files; the limit is 64: raise it "
                                  "('ulimit -n 128', or LimitNOFILE in the systemd unit)"));
}

}  // namespace echo_server
