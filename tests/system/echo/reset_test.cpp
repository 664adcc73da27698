// SPDX-License-Identifier: BSD-2-Clause
// Clients that end their connection by a RST, in every state of the connection.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <csignal>
#include <functional>
#include <list>
#include <string>

#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

// Sends until the kernel has no room left.
void fill(const Client& client) {
    const std::string data(1U << 20U, 'f');
    while (::send(client.fd(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
}

void go_through(Client& client, std::size_t size) {
    const std::string data(size, 'd');
    client.send(data);
    CHECK(client.receive(size) == data);
}

}  // namespace

TEST_CASE("reset: a reset in any state of a connection affects no other client, and leaves nothing behind") {
    struct State {
        const char* name;
        std::function<void(Client&)> enter;
    };
    const std::list<State> states = {
        {"silent", [](Client&) {}},
        {"a message is under way", [](Client& client) { client.send("x"); }},
        {"idle after a message", [](Client& client) { go_through(client, 1); }},
        {"a stream is under way", [](Client& client) { client.send(std::string(100'000, 's')); }},
        {"idle after a stream", [](Client& client) { go_through(client, 200'000); }},
        {"bytes wait in both directions", fill},
        {"half-closed, and the server owes",
         [](Client& client) {
             fill(client);
             client.shutdown_write();
         }},
        {"ended on both sides",
         [](Client& client) {
             client.shutdown_write();
             CHECK(client.at_end());
         }},
    };
    const Network network;
    Server server(network.vm, {"--ports", "7", "--threads", "2"});
    Client witness = connected(network.host, 7, Network::vm_ip4);
    const auto settled = [&] { return status_shows(network.vm, "  1 open of at most "); };
    REQUIRE(settled());
    const auto descriptors = descriptors_of(server);
    for (const auto& state : states) {
        CAPTURE(state.name);
        std::list<Client> clients;
        for (int i = 0; i < 10; ++i)
            state.enter(clients.emplace_back(network.host, i % 2 == 0 ? Network::vm_ip4 : Network::vm_ip6, 7));
        for (auto& client : clients) reset(std::move(client));
        CHECK(eventually(settled));
        CHECK(eventually([&] { return descriptors_of(server) == descriptors; }));
        go_through(witness, 100'000);
    }
    CHECK(server.output().ends_with(fmt::format("sudo kill {}\n", server.pid())));  // the last line of the start
}

TEST_CASE("reset: connections that are reset before they are accepted affect no other client") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    Client witness = connected(network.host, 7, Network::vm_ip4);
    server.freeze();
    for (int i = 0; i < 100; ++i) {
        Client client(network.host, i % 2 == 0 ? Network::vm_ip4 : Network::vm_ip6, 7);
        if (i % 3 == 0) client.send("x");
        reset(std::move(client));
    }
    server.signal(SIGCONT);
    go_through(witness, 100'000);
    CHECK(echoes(network.host, Network::vm_ip6, 7));
    CHECK(eventually([&] { return status_shows(network.vm, "  1 open of at most "); }));
}

TEST_CASE("reset: a drain ends when the last connections are reset") {
    const Network network;
    Server server(network.vm, {"--ports", "7", "--threads", "2", "--drain-timeout", "3600"});
    std::list<Client> clients;
    for (int i = 0; i < 10; ++i) {
        clients.push_back(connected(network.host, 7, Network::vm_ip4));
        if (i % 2 == 0) fill(clients.back());
    }
    server.signal(SIGTERM);
    server.wait_for("waiting up to 3600 s for 10 connections");
    for (auto& client : clients) reset(std::move(client));
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}

}  // namespace echo_server
