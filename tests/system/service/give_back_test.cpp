// SPDX-License-Identifier: BSD-2-Clause
// A range gives a port to a program that begins to listen there, and takes it back when the program is gone.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <list>
#include <optional>
#include <string>
#include <thread>

#include "support/client.h"
#include "support/inject_fault.h"
#include "support/port_key.h"
#include "support/server.h"
#include "support/storm.h"

namespace echo_server {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto by_tcp = NamedServer::Protocol::tcp;

std::string answers_on(const Netns& netns, std::uint16_t port) { return who_answers(netns, by_tcp, "127.0.0.1", port); }

Fd listen_on(std::uint16_t port) {
    Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    REQUIRE(::listen(socket.get(), 1) == 0);
    return socket;
}

}  // namespace

TEST_CASE("give back: a program that begins to listen gets its clients, and the port echoes again after its end") {
    const Netns netns;
    const TempFile file("7,8000-8100\n");
    Server server(netns, {"--ports-file", file.path()});
    auto client = connected(netns, 8080);
    std::atomic<int> refused = 0;
    std::list<Storm> elsewhere;
    for (int i = 0; i < 8; ++i)
        elsewhere.emplace_back([&netns, &refused] { refused += echoes(netns, "127.0.0.1", 8001) ? 0 : 1; });
    {
        const NamedServer program(netns, by_tcp, "127.0.0.1", 8080, "program");
        CHECK(server.wait_for("closed") == "closed: 8080 (another program listens)");
        CHECK(answers_on(netns, 8080) == "program");
        CHECK(status_shows(netns,
                           "  ports        101 open: 7,8000-8079,8081-8100\n"
                           "  left out     8080 (another program listens)\n"));
        client.send("y");
        CHECK(client.receive(1) == "y");  // a connected client stays
        // A reload leaves the port alone as well, with the program and without it.
        CHECK(server.reload() == fmt::format("reloaded {}: nothing changed; 101 ports open; left out: 8080 (another "
                                             "program listens)",
                                             file.path()));
    }
    const auto end = Clock::now();
    server.signal(SIGHUP);
    CHECK(server.wait_for("reloaded").find("nothing changed") != std::string::npos);
    CHECK(server.wait_for("open again") == "open again: 8080");
    CHECK(Clock::now() - end >= std::chrono::seconds(10));
    CHECK(echoes(netns, "127.0.0.1", 8080));
    CHECK_FALSE(status_shows(netns, "left out"));
    for (auto& clients : elsewhere) {
        clients.stop();
        CHECK(clients.times() > 0);
    }
    CHECK(refused == 0);
}

TEST_CASE("give back: the clients of a service that restarts meet no echo") {
    const Netns netns;
    std::optional<NamedServer> program(std::in_place, netns, by_tcp, "127.0.0.1", 8080, "program");
    Server server(netns, {"--ports", "8000-8100"});
    CHECK(server.output().find("; left out: 8080 (system-tests)\n") != std::string::npos);
    std::atomic<int> met_echo = 0;
    Storm clients([&] { met_echo += answers_on(netns, 8080) == "echo" ? 1 : 0; });
    for (int i = 0; i < 8; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1200));  // the server looks each second
        program.reset();
        std::this_thread::sleep_for(std::chrono::milliseconds(900));
        program.emplace(netns, by_tcp, "127.0.0.1", 8080, "program");
    }
    clients.stop();
    CHECK(met_echo == 0);
    CHECK(clients.times() > 0);
    CHECK(answers_on(netns, 8080) == "program");
    CHECK(server.output().find("open again") == std::string::npos);
}

TEST_CASE("give back: a named port stays open, with one warning") {
    const Netns netns;
    Server server(netns, {"--ports", "77,1-10"});
    {
        const NamedServer program(netns, by_tcp, "127.0.0.1", 77, "program");
        CHECK(
            server.wait_for("another program") ==
            "echo-server: another program listens on ports that the list names: 77. Its new connections come here, and "
            "the next start will fail: end that program, or take these ports out of the list");
        CHECK(answers_on(netns, 77) == "echo");
    }
    const NamedServer again(netns, by_tcp, "127.0.0.1", 77, "program");
    const NamedServer in_the_range(netns, by_tcp, "127.0.0.1", 9, "program");
    server.wait_for("closed: 9 ");
    CHECK(count(server.output(), "another program listens on ports") == 1);
    CHECK(answers_on(netns, 77) == "echo");
}

TEST_CASE("give back: a port that bpftool opens or closes stays as it is until the next reload") {
    const Netns netns;
    const TempFile file("20-30\n");
    Server server(netns, {"--ports-file", file.path()});
    const auto map = BpfObjects(netns).maps.at("echo_ports");
    run_ok(netns, open_by_bpftool({"id", map}, 40));
    run_ok(netns, close_by_bpftool({"id", map}, 25));
    const NamedServer elsewhere(netns, by_tcp, "127.0.0.1", 40, "program");
    {
        const NamedServer closed(netns, by_tcp, "127.0.0.1", 25, "program");
        const NamedServer in_the_range(netns, by_tcp, "127.0.0.1", 30, "program");
        CHECK(server.wait_for("closed") == "closed: 30 (another program listens)");
        run_ok(netns, open_by_bpftool({"id", map}, 30));
        // After one more look the ports are still as bpftool has set them.
        const NamedServer next(netns, by_tcp, "127.0.0.1", 29, "program");
        CHECK(server.wait_for("closed") == "closed: 29 (another program listens)");
        CHECK(answers_on(netns, 40) == "echo");
        CHECK(answers_on(netns, 30) == "echo");
        CHECK(answers_on(netns, 25) == "program");
    }
    CHECK(server.wait_for("open again") == "open again: 29-30");
    CHECK(answers_on(netns, 25) == "nobody");
    CHECK(server.reload() == fmt::format("reloaded {}: added 25; removed 40; 11 ports open", file.path()));
}

TEST_CASE("give back: --shadow-listeners closes no port for programs, and --address none for programs elsewhere") {
    const Netns netns;
    run_ok(netns, {"ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo"});
    Server taker(netns, {"--ports", "1-100", "--shadow-listeners", "--address", "127.0.0.0/8"});
    const NamedServer program(netns, by_tcp, "0.0.0.0", 80, "program");
    const NamedServer local(netns, by_tcp, "127.0.0.1", 81, "program");
    Server server(netns, {"--ports", "200-300", "--address", "192.0.2.0/24", "--listen", "127.0.0.1:7778"});
    const NamedServer elsewhere(netns, by_tcp, "127.0.0.1", 280, "elsewhere");
    const NamedServer everywhere(netns, by_tcp, "0.0.0.0", 290, "everywhere");
    CHECK(server.wait_for("closed") == "closed: 290 (another program listens)");
    CHECK(who_answers(netns, by_tcp, "192.0.2.7", 280) == "echo");
    CHECK(who_answers(netns, by_tcp, "192.0.2.7", 290) == "everywhere");
    CHECK(answers_on(netns, 280) == "elsewhere");
    CHECK(answers_on(netns, 80) == "echo");
    CHECK(answers_on(netns, 81) == "echo");
    CHECK(taker.output().find("closed") == std::string::npos);
}

TEST_CASE("give back: a look that fails is one warning, and the next look does what is left to do") {
    for (const auto call : {BPF_MAP_LOOKUP_BATCH, BPF_MAP_DELETE_BATCH, BPF_MAP_UPDATE_BATCH}) {
        CAPTURE(call);
        const Netns netns;
        const TempFile fault("");
        std::optional<NamedServer> earlier(std::in_place, netns, by_tcp, "127.0.0.1", 7, "earlier");
        Server server(netns, {"--ports", "1-10"}, [&] { fail_bpf(call, fault.path()); });
        earlier.reset();
        fault.write("now");
        const NamedServer program(netns, by_tcp, "127.0.0.1", 8, "program");
        const auto warning = server.wait_for("looking for programs that listen on our ports: ");
        CHECK(warning.ends_with(" the map echo_ports: Cannot allocate memory; the server tries again"));
        CHECK(answers_on(netns, 8) == (call == BPF_MAP_UPDATE_BATCH ? "program" : "echo"));
        CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
        fault.write("");
        server.wait_for(call == BPF_MAP_UPDATE_BATCH ? "open again: 7" : "closed: 8 (another program listens)");
        CHECK(echoes(netns, "127.0.0.1", 7) == (call == BPF_MAP_UPDATE_BATCH));
        CHECK(answers_on(netns, 8) == "program");
        CHECK(count(server.output(), "; the server tries again") == 1);
    }
}

TEST_CASE("give back: thousands of programs that come and go cost at most one percent of a CPU" *
          doctest::test_suite("alone")) {
    const Netns netns;
    Server server(netns, {"--ports", "1-65535", "--allow-ephemeral", "--listen", "127.0.0.1:60000"});
    const auto start = Clock::now();
    const auto before = server.cpu_time();
    while (Clock::now() - start < std::chrono::seconds(12)) {
        std::list<Fd> programs;
        {
            const Netns::Entered entered(netns);
            for (std::uint16_t port = 1000; port < 6000; ++port) programs.push_back(listen_on(port));
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    }
    const auto used = server.cpu_time() - before;
    const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
    MESSAGE(used.count(), " ms of CPU time in ", elapsed.count(), " ms");
    CHECK(used < elapsed / 50);
    CHECK(count(server.output(), "\nclosed: ") == 1);
    CHECK(server.output().find("\nclosed: 1000-5999 (another program listens)\n") != std::string::npos);
}

}  // namespace echo_server
