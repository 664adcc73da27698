// SPDX-License-Identifier: BSD-2-Clause
// RFC 862 from the view of clients of all kinds.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>

#include "net/address.h"
#include "net/sockets.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("echo: a byte at a time, in order, both families") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    for (const std::string address : {Network::vm_ip4, Network::vm_ip6}) {
        Client client(network.host, address, 7);
        for (const char* byte = "0123456789"; *byte != '\0'; ++byte) {
            client.send({byte, 1});
            CHECK(client.receive(1) == std::string(1, *byte));
        }
        client.shutdown_write();
        CHECK(client.at_end());
    }
}

TEST_CASE("echo: --verbose names the client, and the address and port that it connected to") {
    const Network network;
    Server server(network.vm, {"--ports", "7,77", "--verbose"});
    REQUIRE(echoes(network.host, Network::vm_ip4, 77));
    const auto line = server.wait_for("connection from ");
    CHECK(line.starts_with("connection from 192.0.2.1:"));
    CHECK(line.ends_with(" to 192.0.2.2:77"));
    REQUIRE(echoes(network.host, Network::vm_ip6, 7));
    CHECK(server.wait_for("connection from ").ends_with(" to [2001:db8::2]:7"));

    // Scanners connect in this way.
    for (int i = 0; i < 100; ++i) reset(Client(network.host, Network::vm_ip4, 7));
    for (int i = 0; i < 100; ++i) CHECK(server.wait_for("connection from ").ends_with(" to 192.0.2.2:7"));
}

TEST_CASE(
    "listener: accepted sockets have TCP_NODELAY, keep-alive and urgent data in line, and the backlog is the kernel's "
    "largest") {
    const Netns netns;
    const Netns::Entered entered(netns);
    const Fd listener = open_listener(parse_endpoint("127.0.0.1:7777"));
    const Client client(netns, "127.0.0.1", 7777);
    pollfd arrived{.fd = listener.get(), .events = POLLIN, .revents = 0};
    REQUIRE(::poll(&arrived, 1, 10000) == 1);
    const Fd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    REQUIRE(accepted);
    const auto option = [&](int level, int name) {
        int value = 0;
        socklen_t size = sizeof(value);
        REQUIRE(::getsockopt(accepted.get(), level, name, &value, &size) == 0);
        return value;
    };
    CHECK(option(IPPROTO_TCP, TCP_NODELAY) == 1);
    CHECK(option(SOL_SOCKET, SO_KEEPALIVE) == 1);
    CHECK(option(SOL_SOCKET, SO_OOBINLINE) == 1);

    auto limit = run_ok(netns, {"cat", "/proc/sys/net/core/somaxconn"});
    limit.pop_back();
    CHECK(run_ok(netns, {"ss", "-Hltn"}).find(" " + limit + " ") != std::string::npos);
}

TEST_CASE("listener: an address of this machine only, of all interfaces, and one that the kernel chooses") {
    const Network network;
    {
        const Server server(network.vm, {"--ports", "7", "--listen", "0.0.0.0:7777"});
        CHECK(echoes(network.host, Network::vm_ip4, 7777));
        CHECK(try_connect(network.host, Network::vm_ip6, 7777) == ECONNREFUSED);
        CHECK(echoes(network.host, Network::vm_ip6, 7));
    }
    {
        const Server server(network.vm, {"--ports", "7", "--listen", "[::]:7777"});
        CHECK(echoes(network.host, Network::vm_ip4, 7777));
        CHECK(echoes(network.host, Network::vm_ip6, 7777));
        CHECK(echoes(network.host, Network::vm_ip4, 7));
    }
    {
        Server server(network.vm, {"--ports", "7", "--listen", "127.0.0.1:0"});
        CHECK(server.output().find("127.0.0.1:0") == std::string::npos);
        CHECK(echoes(network.host, Network::vm_ip6, 7));
    }
}

}  // namespace echo_server
