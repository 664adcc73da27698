// SPDX-License-Identifier: BSD-2-Clause
// Which ports got through: the report of 'status' beside that of nmap, with a firewall in between or without.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <sys/socket.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "support/client.h"
#include "support/nmap.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

namespace {

using nlohmann::json;

void add_rules(const Netns& netns, const std::string& rules) {
    run_ok(netns, {"nft", "-f", TempFile("table inet firewall {" + rules + "\n}\n").path()});
}

constexpr auto verified = R"((\d+)/tcp +open +\S+\n\|_tcp-echo: echo verified \(4096 bytes, \d+ ms\)\n)";
constexpr auto silent = R"((\d+)/tcp +open +\S+\n\|_tcp-echo: no echo: silence for \d+ ms \(2 tries\)\n)";

}  // namespace

TEST_CASE("levels: half-open scans and connect scans by nmap, and echoes, are three levels") {
    const Network network;
    const Server server(network.vm, {"--ports", "1-100"});
    // If nmap sent probes again, a slow machine would change the counts.
    nmap(network.host, {"-sS", "-p", "1-10", "--max-retries", "0", "--min-rtt-timeout", "5s", Network::vm_ip4});
    nmap(network.host, {"-sT", "-p", "11-19", "--max-retries", "0", "--min-rtt-timeout", "5s", Network::vm_ip4});
    nmap(network.host, {"-sT", "-6", "-p", "20", "--max-retries", "0", "--min-rtt-timeout", "5s", Network::vm_ip6});
    for (std::uint16_t port = 21; port <= 24; ++port) CHECK(echoes(network.host, Network::vm_ip4, port));
    CHECK(echoes(network.host, Network::vm_ip6, 25));
    check_levels(network.vm,
                 {{"echoed", "21-25"}, {"connected", "11-20"}, {"attempted", "1-10"}, {"not_reached", "26-100"}});

    const auto by_port = only_status(network.vm)["by_port"];
    CHECK(by_port.size() == 25);
    for (int port = 1; port <= 25; ++port) {
        CAPTURE(port);
        CHECK(by_port[std::to_string(port)] == json{{"attempts", 1},
                                                    {"connections", port > 10 ? 1 : 0},
                                                    {"echoed", port > 20 ? 1 : 0},
                                                    {"received", port > 20 ? 6 : 0},
                                                    {"sent", port > 20 ? 6 : 0}});
    }
    CHECK(status_shows(network.vm,
                       "  ports        100 open: 1-100\n"
                       "  echoed       5 ports: 21-25\n"
                       "  connected    10 ports without an echo: 11-20\n"
                       "  attempted    10 ports without a connection: 1-10\n"
                       "  not reached  75 ports: 26-100\n"));
    const auto metrics = run_ok(network.vm, echo_server({"status", "--prometheus"}));
    const std::map<std::string, int> counts{{"echoed", 5}, {"connected", 10}, {"attempted", 10}, {"not_reached", 75}};
    for (const auto& [level, count] : counts)
        CHECK(metrics.find(fmt::format("\necho_server_ports_by_level{{listener=\"127.0.0.1:7777\",level=\"{}\"}} {}\n",
                                       level, count)) != std::string::npos);
}

TEST_CASE("levels: status and nmap's script together show where a firewall drops, and what") {
    const Network network;
    // Before the vm's TCP, as a firewall in front of the vm would do it.
    add_rules(network.vm, R"(
        chain in {
            type filter hook prerouting priority 0;
            tcp dport 10-19 tcp flags syn drop
            tcp dport 30-39 meta length > 100 drop comment "data"
        }
        chain out {
            type filter hook postrouting priority 0;
            tcp sport 20-29 tcp flags & (syn | ack) == syn | ack drop
            tcp sport 40-49 meta length > 100 drop comment "data"
        })");
    const Server server(network.vm, {"--ports", "10-59"});
    Command scan{"-p",         "10-59",         "--max-retries",      "2", "--min-rtt-timeout", "500ms", "--script",
                 TCP_ECHO_NSE, "--script-args", "tcp-echo.timeout=4s"};
    SUBCASE("on IPv4, by a half-open scan, whose script connects") {
        scan.insert(scan.end(), {"-sS", Network::vm_ip4});
    }
    SUBCASE("on IPv6, by a connect scan") { scan.insert(scan.end(), {"-sT", "-6", Network::vm_ip6}); }
    const auto report = nmap(network.host, scan);
    CAPTURE(report);
    CHECK(ports_in(report, R"((\d+)/tcp +filtered)") == "10-29");
    CHECK(ports_in(report, silent) == "30-49");
    CHECK(ports_in(report, verified) == "50-59");
    // The server sent data back on 40-49. Only the client knows that it did not arrive.
    check_levels(network.vm,
                 {{"echoed", "40-59"}, {"connected", "30-39"}, {"attempted", "20-29"}, {"not_reached", "10-19"}});
}

TEST_CASE("levels: status --ports lists each port that was reached, the busiest first") {
    const Netns netns;
    const Server server(netns, {"--ports", "1-100"});
    const auto table = [&] {
        const auto text = run_ok(netns, echo_server({"status", "--ports"}));
        return text.substr(text.find('\n') + 1);
    };
    CHECK(table() == "  no port was reached\n");
    for (int i = 0; i < 12; ++i) CHECK(echoes(netns, "127.0.0.1", 77));
    for (const auto port : {std::uint16_t{8}, std::uint16_t{9}, std::uint16_t{9}})
        CHECK(try_connect(netns, "127.0.0.1", port) == 0);
    const std::string expected =
        "   port    attempts  connections   with echo      received          sent\n"
        "     77          12           12          12            72            72\n"
        "      9           2            2           0             0             0\n"
        "      8           1            1           0             0             0\n";
    eventually([&] { return table() == expected; });
    CHECK(table() == expected);
    CHECK(run_ok(netns, echo_server({"status", "--ports"}))
              .starts_with(
                  fmt::format("echo-server {}: process {}, user nobody, up ", ECHO_SERVER_VERSION, server.pid())));
}

TEST_CASE("levels: each connection counts once, on the port that it came to, in every thread") {
    const Netns netns;
    const Server server(netns, {"--ports", "1-1000", "--threads", "4"});
    for (std::uint16_t port = 1; port <= 1000; ++port) CHECK(echoes(netns, port % 2 == 0 ? "127.0.0.1" : "::1", port));
    const auto big = bytes_of('a', 1 << 20);
    CHECK(echoes(netns, "127.0.0.1", 500, big));  // through the pipe, and in many pieces
    const auto complete = [&] {
        const auto shown = only_status(netns);
        for (int port = 1; port <= 1000; ++port) {
            const auto count = port == 500 ? 2 : 1;
            const auto bytes = port == 500 ? 6 + (1 << 20) : 6;
            if (shown["by_port"][std::to_string(port)] != json{{"attempts", count},
                                                               {"connections", count},
                                                               {"echoed", count},
                                                               {"received", bytes},
                                                               {"sent", bytes}})
                return false;
        }
        return shown["by_port"].size() == 1000;
    };
    CHECK(eventually(complete));
}

TEST_CASE("levels: a port that was closed stays in its level") {
    const Netns netns;
    const TempFile file("7-9\n");
    Server server(netns, {"--ports-file", file.path()});
    CHECK(echoes(netns, "127.0.0.1", 7));
    file.write("8-9\n");
    server.reload();
    check_levels(netns, {{"echoed", "7"}, {"connected", "none"}, {"attempted", "none"}, {"not_reached", "8-9"}});
}

TEST_CASE("levels: connections to the socket's own address count on no port, whether its port is open or not") {
    const Network network;
    for (const std::string address : {"127.0.0.1", "0.0.0.0"}) {
        CAPTURE(address);
        const Server closed(network.vm, {"--ports", "7", "--listen", address + ":9"});
        CHECK(echoes(network.vm, "127.0.0.1", 9));
        CHECK(try_connect(network.vm, "127.0.0.1", 9) == 0);
        CHECK(eventually([&] { return only_status(network.vm)["connections"]["accepted"] == 2; }));
        CHECK(only_status(network.vm)["by_port"].empty());
        check_levels(network.vm,
                     {{"echoed", "none"}, {"connected", "none"}, {"attempted", "none"}, {"not_reached", "7"}});
    }
    const Server open(network.vm, {"--ports", "7-9", "--listen", "127.0.0.1:9"});
    CHECK(echoes(network.vm, "127.0.0.1", 9));
    CHECK(only_status(network.vm)["attempts"]["steered"] == 0);
    CHECK(try_connect(network.host, Network::vm_ip4, 9) == 0);
    check_levels(network.vm, {{"echoed", "none"}, {"connected", "9"}, {"attempted", "none"}, {"not_reached", "7-8"}});
    CHECK(echoes(network.host, Network::vm_ip6, 9));
    CHECK(echoes(network.vm, "127.0.0.1", 8));
    check_levels(network.vm, {{"echoed", "8-9"}, {"connected", "none"}, {"attempted", "none"}, {"not_reached", "7"}});
}

TEST_CASE("levels: a connection that was reset before the server accepted it counts on its port") {
    const Netns netns;
    const Server server(netns, {"--ports", "7-9"});
    server.freeze();
    reset(Client(netns, "127.0.0.1", 8));
    reset(Client(netns, "::1", 9));
    server.signal(SIGCONT);
    check_levels(netns, {{"echoed", "none"}, {"connected", "8-9"}, {"attempted", "none"}, {"not_reached", "7"}});
    CHECK(only_status(netns)["by_port"].size() == 2);
}

TEST_CASE("levels: the bytes of a port are exact once its connections have ended, however they end") {
    const Netns netns;
    const Server server(netns, {"--ports", "7-9"});
    const auto big = bytes_of('a', 1 << 20);
    CHECK(echoes(netns, "127.0.0.1", 7, big));
    {
        Client closed(netns, "::1", 8);
        closed.send("closed");
        CHECK(closed.receive(6) == "closed");
    }
    Client resets(netns, "127.0.0.1", 8);
    resets.send("reset");
    CHECK(resets.receive(5) == "reset");
    reset(std::move(resets));
    // The server takes as many bytes as it can, and keeps some; the client is gone before all were sent back.
    Client deaf(netns, "127.0.0.1", 9);
    for (ssize_t sent = 1, left = 10; sent > 0 || --left > 0;)
        sent = ::send(deaf.fd(), big.data(), big.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    const auto of = [&](const char* port) { return only_status(netns)["by_port"][port]; };
    CHECK(eventually([&] { return of("9").value("received", 0) > of("9").value("sent", 0); }));
    reset(std::move(deaf));
    CHECK(eventually([&] { return only_status(netns)["connections"]["open"] == 0; }));
    CHECK(of("7")["received"] == big.size());
    CHECK(of("7")["sent"] == big.size());
    CHECK(of("8")["received"] == 11);
    CHECK(of("8")["sent"] == 11);
    CHECK(of("9")["received"] > of("9")["sent"]);
    CHECK(bytes_add_up(netns));
}

TEST_CASE(
    "levels: the bytes of a connection that is open show up while it goes on, also after SIGUSR2, which resets them") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    Client client = connected(netns, 7);  // has sent a byte
    std::size_t bytes = 1;
    for (const std::string text : {"a message", "another one"}) {
        client.send(text);
        CHECK(client.receive(text.size()) == text);
        bytes += text.size();
        CHECK(eventually([&] { return only_status(netns)["by_port"]["7"]["sent"] == bytes; }));
        CHECK(bytes_add_up(netns));
    }
    server.signal(SIGUSR2);
    server.wait_for("SIGUSR2");
    CHECK(only_status(netns)["by_port"].empty());
    client.send("x");
    CHECK(client.receive(1) == "x");
    CHECK(eventually([&] {
        return only_status(netns)["by_port"] ==
               json{{"7", {{"attempts", 0}, {"connections", 0}, {"echoed", 0}, {"received", 1}, {"sent", 1}}}};
    }));
    CHECK(run_ok(netns, echo_server({"status", "--ports"}))
              .ends_with("\n      7           0            0           0             1             1\n"));
}

}  // namespace echo_server
