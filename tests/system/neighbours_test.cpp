// SPDX-License-Identifier: BSD-2-Clause
// Other services on the same host, and what a violent end leaves of ours.
#include <doctest/doctest.h>

#include <csignal>

#include "client.h"
#include "server.h"

namespace {

constexpr auto tcp = NamedServer::Protocol::tcp;
constexpr auto udp = NamedServer::Protocol::udp;

}  // namespace

TEST_CASE("neighbours: foreign services on other ports, and UDP on the same, are untouched") {
    const Network network;
    const NamedServer ssh(network.vm, tcp, "0.0.0.0", 22, "ssh");
    const NamedServer web(network.vm, tcp, Network::vm_ip6, 80, "web");
    const NamedServer udp_echo(network.vm, udp, "0.0.0.0", 7, "UDP echo");
    const NamedServer udp_other(network.vm, udp, "::", 77, "UDP other");
    const auto check = [&] {
        CHECK(who_answers(network.host, tcp, Network::vm_ip4, 22) == "ssh");
        CHECK(who_answers(network.host, tcp, Network::vm_ip6, 80) == "web");
        CHECK(who_answers(network.host, udp, Network::vm_ip4, 7) == "UDP echo");
        CHECK(who_answers(network.host, udp, Network::vm_ip6, 77) == "UDP other");
    };
    check();
    {
        Server server(network.vm, {"--ports", "1-1000,!22,!80"});
        check();
        CHECK(who_answers(network.host, tcp, Network::vm_ip4, 7) == "echo");
        CHECK(who_answers(network.host, tcp, Network::vm_ip6, 77) == "echo");
    }
    check();
}

TEST_CASE("neighbours: after kill -9 nothing is left, and the ports are closed") {
    const Network network;
    Server server(network.vm, {"--ports", "1-1000"});
    const BpfObjects objects(network.vm);
    CHECK(objects.maps.size() == 3);
    REQUIRE(echoes(network.host, Network::vm_ip4, 7));
    server.signal(SIGKILL);
    CHECK(server.wait() == -SIGKILL);
    CHECK(objects.gone());
    CHECK(try_connect(network.host, Network::vm_ip4, 7) == ECONNREFUSED);
    CHECK(try_connect(network.host, Network::vm_ip6, 777) == ECONNREFUSED);
}

TEST_CASE("neighbours: a listed port is taken from its listener, and given back") {
    const Netns netns;
    const NamedServer other(netns, tcp, "0.0.0.0", 77, "other");
    {
        Server server(netns, {"--ports", "77"});
        CHECK(who_answers(netns, tcp, "127.0.0.1", 77) == "echo");
    }
    CHECK(who_answers(netns, tcp, "127.0.0.1", 77) == "other");
}

TEST_CASE("neighbours: of two instances the newer answers, and after its end the older again") {
    const Netns netns;
    Server older(netns, {"--ports", "7,77", "--verbose"});
    {
        Server newer(netns, {"--ports", "7", "--listen", "127.0.0.1:7778", "--verbose"});
        CHECK(echoes(netns, "127.0.0.1", 7));
        newer.wait_for("to 127.0.0.1:7");
        CHECK(echoes(netns, "127.0.0.1", 77));
        older.wait_for("to 127.0.0.1:77");
    }
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(older.wait_for("connection").ends_with("to 127.0.0.1:7"));
}
