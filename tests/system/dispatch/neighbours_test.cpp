// SPDX-License-Identifier: BSD-2-Clause
// Other services on the same host, and what is left after a kill.
#include <doctest/doctest.h>

#include <csignal>

#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

using enum NamedServer::Protocol;

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
        const Server server(network.vm, {"--ports", "1-1000,!22,!80"});
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
    CHECK(objects.maps.size() == 8);  // the table of bpf/README.md has them
    REQUIRE(echoes(network.host, Network::vm_ip4, 7));
    server.signal(SIGKILL);
    CHECK(server.wait() == -SIGKILL);
    CHECK(objects.gone());
    CHECK(try_connect(network.host, Network::vm_ip4, 7) == ECONNREFUSED);
    CHECK(try_connect(network.host, Network::vm_ip6, 777) == ECONNREFUSED);
}

}  // namespace echo_server
