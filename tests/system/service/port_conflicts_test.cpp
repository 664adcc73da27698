// SPDX-License-Identifier: BSD-2-Clause
// The server never takes by accident a port on which another program listens.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

constexpr auto tcp = NamedServer::Protocol::tcp;

std::string who(const Netns& netns, std::uint16_t port) { return who_answers(netns, tcp, "127.0.0.1", port); }

}  // namespace

TEST_CASE("port conflicts: a port that is named must be free, a range takes what is free, and a flag takes all") {
    const Netns netns;
    const NamedServer ssh(netns, tcp, "0.0.0.0", 22, "ssh");

    const auto refused = run(netns, echo_server({"--ports", "7,22"}));
    CHECK(refused.code == 1);
    CHECK(refused.output ==
          "echo-server: port 22 (system-tests) is already served by another socket: leave it out, or pass "
          "--shadow-listeners to take its new connections\n");
    CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
    const auto nothing = run(netns, echo_server({"--ports", "22-22"}));
    CHECK(nothing.code == 1);
    CHECK(nothing.output ==
          "echo-server: the port list leaves no port to open; left out: 22 (system-tests): list other ports, or see "
          "--shadow-listeners and --allow-ephemeral\n");
    {
        Server server(netns, {"--ports", "1-1000"});
        CHECK(server.output().find(": 999 TCP ports open: 1-21,23-1000; left out: 22 (system-tests)\n") !=
              std::string::npos);
        CHECK(who(netns, 21) == "echo");
        CHECK(who(netns, 22) == "ssh");
        CHECK(status_shows(netns, "\n  left out     22 (another program listens)\n"));
    }
    {
        Server server(netns, {"--ports", "1-1000", "--shadow-listeners"});
        CHECK(server.output().find("echo-server: port 22 (system-tests) is already served by another socket: "
                                   "--shadow-listeners takes its new connections\n") != std::string::npos);
        CHECK(server.output().find("left out") == std::string::npos);
        CHECK(who(netns, 22) == "echo");
        CHECK_FALSE(status_shows(netns, "left out"));
    }
    CHECK(who(netns, 22) == "ssh");
}

TEST_CASE("port conflicts: the same by SIGHUP, where the old ports stay") {
    const Netns netns;
    const NamedServer ssh(netns, tcp, "0.0.0.0", 22, "ssh");
    const TempFile file("7\n");
    const auto& path = file.path();
    {
        Server server(netns, {"--ports-file", path});
        file.write("7-8,22\n");
        CHECK(server.reload() ==
              "echo-server: port 22 is already served by another socket: leave it out, or pass --shadow-listeners to "
              "take its new connections ('sudo ss -tlnp' shows who listens); the ports stay as they are");
        CHECK(who(netns, 22) == "ssh");
        CHECK(who(netns, 7) == "echo");
        CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
        file.write("1-1000\n");
        CHECK(server.reload() ==
              fmt::format("reloaded {}: added 1-6,8-21,23-1000; removed none; 999 ports open; left out: 22 (another "
                          "program listens)",
                          path));
        CHECK(who(netns, 22) == "ssh");
        CHECK(who(netns, 1000) == "echo");
        CHECK(status_shows(netns, "\n  left out     22 (another program listens)\n"));
        file.write("1-1000,!22\n");
        CHECK(server.reload() == fmt::format("reloaded {}: nothing changed; 999 ports open", path));
        CHECK_FALSE(status_shows(netns, "left out"));
    }
    Server server(netns, {"--ports-file", path, "--shadow-listeners"});
    file.write("1-1000\n");
    CHECK(server.reload() ==
          "echo-server: port 22 is already served by another socket: --shadow-listeners takes its new connections "
          "('sudo ss -tlnp' shows who listens)");
    CHECK(server.next_line() == fmt::format("reloaded {}: added 22; removed none; 1000 ports open", path));
    CHECK(who(netns, 22) == "echo");
}

TEST_CASE("port conflicts: listeners of every kind count, and one error names all") {
    const Netns netns;
    const NamedServer ip6_only(netns, tcp, "::1", 80, "web");
    const NamedServer one_address(netns, tcp, "127.0.0.7", 81, "local");
    const NamedServer udp(netns, NamedServer::Protocol::udp, "0.0.0.0", 82, "UDP");
    const Process listener(netns, {"nc", "-lk", "90"});
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 90) == 0; }));
    const auto [code, output] = run(netns, echo_server({"--ports", "80,81,82,90"}));
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: ports 80-81 (system-tests), 90 (nc) are already served by other sockets: leave them out, or "
          "pass --shadow-listeners to take their new connections\n");
    CHECK(run_ok(netns, echo_server({"--check", "--ports", "80-90"})) ==
          "nothing is wrong; a start would have 8 TCP ports open: 82-89; left out: 80-81 (system-tests), 90 (nc)\n");
}

TEST_CASE("port conflicts: a range may have every port, also that of the server's socket") {
    const Netns netns;
    const NamedServer ssh(netns, tcp, "::", 22, "ssh");
    const Server server(netns, {"--ports", "1-65535", "--allow-ephemeral"});
    CHECK(who(netns, 22) == "ssh");
    CHECK(who(netns, 7777) == "echo");  // where its own socket is bound
    CHECK(who(netns, 65535) == "echo");
}

TEST_CASE("port conflicts: with --address, a listener elsewhere does not matter") {
    const Netns netns;
    run_ok(netns, {"ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo"});
    const NamedServer local(netns, tcp, "127.0.0.1", 22, "local");
    {
        const Server server(netns, {"--ports", "22", "--address", "192.0.2.0/24"});
        CHECK(who(netns, 22) == "local");
        CHECK(who_answers(netns, tcp, "192.0.2.7", 22) == "echo");
    }
    const NamedServer everywhere(netns, tcp, "0.0.0.0", 23, "everywhere");
    CHECK(run(netns, echo_server({"--ports", "23", "--address", "192.0.2.0/24"})).code == 1);
}

TEST_CASE("port conflicts: without an answer from the kernel no port opens, except with --shadow-listeners") {
    const Netns netns;
    const auto no_netlink = [] { refuse_system_call(SYS_socket, AF_NETLINK, EPROTONOSUPPORT); };
    const auto [code, output] = run(netns, echo_server({"--ports", "7"}), no_netlink);
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: asking the kernel for listening sockets (sock_diag): Protocol not supported. "
          "--shadow-listeners starts without knowing whose ports it takes\n");
    const auto in_a_unit =
        run(netns, echo_server({"--ports", "7"}), [] { refuse_system_call(SYS_socket, AF_NETLINK, EAFNOSUPPORT); });
    CHECK(in_a_unit.output.find("; add AF_NETLINK to RestrictAddressFamilies= in the systemd unit. ") !=
          std::string::npos);
    Server server(netns, {"--ports", "7", "--shadow-listeners"}, no_netlink);
    CHECK(server.output().find("Protocol not supported; ports may be taken from other listeners\n") !=
          std::string::npos);
    CHECK(who(netns, 7) == "echo");
}

}  // namespace echo_server
