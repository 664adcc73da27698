// SPDX-License-Identifier: BSD-2-Clause
// SIGUSR1: the server logs the output of 'status' about itself.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <list>
#include <regex>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/service.h"
#include "support/storm.h"

namespace echo_server {

namespace {

std::string without_uptime(const std::string& text) { return std::regex_replace(text, std::regex(", up [^,\n]*"), ""); }

// The next status in the log.
std::string next_logged(Process& server) {
    auto line = server.wait_for(": process ");
    auto text = line + '\n';
    while (!line.starts_with("  dropped")) {
        line = server.next_line();
        text += line + '\n';
    }
    return without_uptime(text);
}

std::string logged_status(Process& server) {
    server.signal(SIGUSR1);
    return next_logged(server);
}

std::string printed_status(const Netns& netns) { return without_uptime(run_ok(netns, echo_server({"status"}))); }

// Seconds of CPU time that the thread of the event loop has used.
double time_of_event_loop(const Process& server) {
    std::ifstream file(fmt::format("/proc/{0}/task/{0}/schedstat", server.pid()));
    double nanoseconds = 0;
    file >> nanoseconds;
    REQUIRE(nanoseconds > 0);
    return nanoseconds / 1e9;
}

}  // namespace

TEST_CASE("status: SIGUSR1 logs the same text") {
    const Network network;
    const TempFile file("1-1000\n");
    Server server(network.vm, {"--ports-file", file.path(), "--ports", "2000", "--address", "192.0.2.0/24", "--address",
                               "2001:db8::/32", "--drain-timeout", "3600"});
    for (const auto port : std::initializer_list<std::uint16_t>{7, 7, 77})
        CHECK(echoes(network.host, Network::vm_ip4, port));
    CHECK(echoes(network.host, Network::vm_ip6, 777));
    Client client(network.host, Network::vm_ip4, 2000);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    // The server counts an echo a moment after the client has it.
    REQUIRE(eventually([&] { return status_shows(network.vm, "  echoed       4 ports: 7,77,777,2000\n"); }));
    const auto serving = logged_status(server);
    CHECK(serving == printed_status(network.vm));
    CHECK(serving.find("  connections  1 open of at most ") != std::string::npos);
    CHECK(serving.find("  echoed       4 ports: 7,77,777,2000\n") != std::string::npos);

    file.write("1-65535,!30000-65535,!7777\n");
    server.reload();
    CHECK(logged_status(server) == printed_status(network.vm));

    SUBCASE("of a server whose program was detached") {
        detach_program(network.vm);
        const auto logged = logged_status(server);
        CHECK(logged == printed_status(network.vm));
        CHECK(logged.find(", with its program detached: ") != std::string::npos);
    }
    SUBCASE("in a drain") {
        server.signal(SIGTERM);
        server.wait_for("waiting up to");
        const auto logged = logged_status(server);
        CHECK(logged == printed_status(network.vm));
        CHECK(logged.find(", draining\n") != std::string::npos);
        CHECK(logged.find("  connections  1 open of at most ") != std::string::npos);
        client.shutdown_write();
        CHECK(server.wait() == 0);
    }
    SUBCASE("of a server that was replaced, and of the server that replaced it") {
        Server newer(network.vm, {"--ports", "7", "--replace"});
        server.wait_for("waiting up to");
        const auto both = printed_status(network.vm);
        CHECK(both.find(logged_status(server)) != std::string::npos);
        CHECK(both.find(logged_status(newer)) != std::string::npos);
    }
}

TEST_CASE("status: SIGUSR1 logs the same text in the drain of a service, whose ports stay open") {
    const Netns netns;
    Service service(netns);
    const auto idle = service.start_with_idle_client();
    REQUIRE(eventually([&] { return status_shows(netns, "  echoed       1 port: 7\n"); }));
    service.process->signal(SIGTERM);
    service.process->wait_for("stopping");
    const auto logged = logged_status(*service.process);
    CHECK(logged == printed_status(netns));
    CHECK(logged.find(", stopped or draining: new connections wait for the next start\n") != std::string::npos);
}

TEST_CASE("status: SIGUSR1 together with a stop logs the state before the stop or the drain, and no other") {
    const Netns netns;
    for (int i = 0; i < 10; ++i) {
        Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
        Client client(netns, "127.0.0.1", 7);
        client.send("x");
        REQUIRE(client.receive(1) == "x");
        server.freeze();
        for (const int number : {SIGUSR1, SIGTERM, SIGCONT}) server.signal(number);
        const auto logged = next_logged(server);
        CAPTURE(logged);
        const bool drains = logged.find(", draining\n") != std::string::npos;
        CHECK((logged.find("  listener     127.0.0.1:7777, ") != std::string::npos) == !drains);
        CHECK((logged.find("  ports        1 open: 7\n") != std::string::npos) == !drains);
        client.shutdown_write();
        CHECK(server.wait() == 0);
    }
}

TEST_CASE("status: SIGUSR1 during the start is answered once the server serves") {
    const Netns netns;
    const TempFile file("7\n");
    const auto flag = file.path() + ".hang";
    std::ofstream(flag).close();
    Process server(netns, echo_server({"--ports-file", file.path()}), [&] { hang_at(file.path()); });
    CHECK(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
    server.signal(SIGUSR1);
    std::filesystem::remove(flag);
    const auto logged = next_logged(server);
    CHECK(logged == printed_status(netns));
}

TEST_CASE("status: SIGUSR1 needs no privilege, and no descriptor that a client may have") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--listen", "127.0.0.1:7000"}, [] {
        limit_descriptors(100);
        become_ordinary({CAP_BPF, CAP_NET_ADMIN});
    });
    std::list<Client> clients;
    for (int i = 0; i < 100; ++i) clients.emplace_back(netns, "127.0.0.1", 7);
    server.wait_for("new connections wait");
    const auto logged = logged_status(server);
    CHECK(logged == printed_status(netns));
    CHECK(logged.find("  listener     127.0.0.1:7000, ") != std::string::npos);
}

TEST_CASE("status: SIGUSR1 says that the kernel can't read a map, and does not show the server as closed") {
    const Netns netns;
    for (const auto call : {BPF_MAP_LOOKUP_ELEM, BPF_MAP_LOOKUP_BATCH}) {
        const TempFile shortage("");
        Server server(netns, {"--ports", "7"}, [&] { fail_bpf(call, shortage.path()); });
        shortage.write("now");
        server.signal(SIGUSR1);
        const auto line = server.wait_for("SIGUSR1");
        CAPTURE(line);
        CHECK(line.starts_with("echo-server: SIGUSR1: reading the BPF map "));
        CHECK(line.ends_with(": Cannot allocate memory; the status is not logged"));
        shortage.write("");
        CHECK(logged_status(server) == printed_status(netns));
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
    }
}

TEST_CASE("status: a storm of SIGUSR1 costs no client its connection, and a stop gets through" *
          doctest::test_suite("alone")) {
    const Netns netns;
    Server server(netns, {"--ports", "1-65535", "--allow-ephemeral", "--threads", "1"});
    Storm storm([&] { ::kill(server.pid(), SIGUSR1); });
    int served = 0;
    for (int i = 0; i < 1000; ++i)
        if (echoes(netns, i % 2 == 0 ? "127.0.0.1" : "::1", static_cast<std::uint16_t>(1 + i * 65))) ++served;
    CHECK(served == 1000);
    // Each status is whole.
    for (int i = 0; i < 10; ++i) {
        const auto logged = next_logged(server);
        CAPTURE(logged);
        CHECK(std::ranges::count(logged, '\n') >= 7);
        CHECK(logged.find("  ports        65535 open: 1-65535\n") != std::string::npos);
    }
    server.signal(SIGTERM);
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED; }));
    storm.stop();  // first, because after the wait another process may have the number
    CHECK(server.wait() == 0);
    MESSAGE("SIGUSR1 sent: ", storm.times(), ", answered: ", count(server.output(), "  dropped  "));
}

TEST_CASE("status: SIGUSR1 is answered by a thread of its own, so that clients do not wait") {
    const Netns netns;
    Server server(netns, {"--ports", "1-65535", "--allow-ephemeral", "--threads", "1"});
    for (int port = 1; port < 10000; ++port) try_connect(netns, "127.0.0.1", static_cast<std::uint16_t>(port));
    const auto of_event_loop = time_of_event_loop(server);
    const auto of_all = server.cpu_time();
    for (int i = 0; i < 100; ++i) logged_status(server);
    const auto share = (time_of_event_loop(server) - of_event_loop) /
                       std::chrono::duration<double>(server.cpu_time() - of_all).count();
    MESSAGE("share of the event loop: ", share);
    CHECK(share < 0.5);
}

}  // namespace echo_server
