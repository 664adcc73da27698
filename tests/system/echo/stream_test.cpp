// SPDX-License-Identifier: BSD-2-Clause
// More bytes than one buffer holds: spliced, kept for a while, or urgent.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <csignal>
#include <list>
#include <random>
#include <string>
#include <utility>

#include "support/client.h"
#include "support/server.h"
#include "support/temporary.h"

namespace echo_server {

namespace {

std::string noise(std::size_t size) {
    std::mt19937_64 random(862);
    std::string data(size, '\0');
    for (auto& byte : data) byte = static_cast<char>(random());
    return data;
}

/// Sends `data` again and again until the server has read nothing for `milliseconds`; returns the number of bytes sent.
std::size_t send_until_full(Client& client, const std::string& data, int milliseconds = 1000) {
    std::size_t sent = 0;
    pollfd ready{.fd = client.fd(), .events = POLLOUT, .revents = 0};
    while (::poll(&ready, 1, milliseconds) == 1) {
        const auto from = sent % data.size();
        const auto count = ::send(client.fd(), data.data() + from, data.size() - from, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (count > 0)
            sent += static_cast<std::size_t>(count);
        else
            REQUIRE(errno == EAGAIN);
    }
    return sent;
}

}  // namespace

TEST_CASE("stream: 100 MiB through nc come back identical") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    const TempFile sent(noise(100U << 20U));
    const TempFile received("");
    run_ok(network.host, {"sh", "-c", R"(nc -N 192.0.2.2 7 < "$0" > "$1")", sent.path(), received.path()});
    run_ok(network.host, {"cmp", sent.path(), received.path()});
}

TEST_CASE("stream: after a half-close all owed bytes are sent, then our FIN") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    Client client(network.host, Network::vm_ip4, 7);
    const auto data = noise(1U << 20U);
    client.send(data);
    client.shutdown_write();
    CHECK(client.receive(data.size()) == data);
    CHECK(client.at_end());
}

TEST_CASE("stream: a client that never reads costs bounded memory and no CPU, and loses nothing") {
    const Network network;
    for (const auto* netns : {&network.host, &network.vm}) {  // the default
        set_sysctl(*netns, "net/ipv4/tcp_rmem", "4096 131072 6291456");
        set_sysctl(*netns, "net/ipv4/tcp_wmem", "4096 16384 4194304");
    }
    const Server server(network.vm, {"--ports", "7"});
    REQUIRE(echoes(network.host, Network::vm_ip4, 7));  // loads all code into memory
    const long memory = server.status_kb("VmRSS");
    Client client(network.host, Network::vm_ip4, 7);
    const auto data = noise(1U << 20U);
    const auto sent = send_until_full(client, data);
    const long grown = server.status_kb("VmRSS") - memory;
    MESSAGE("taken before the server stopped reading: ", sent >> 10U, " KiB, of that in its process: ", grown, " KiB");
    CHECK(sent < (24U << 20U));  // twice the bytes that the kernel and the server keep
#ifdef NDEBUG
    CHECK(grown < 256);
#else
    CHECK(grown < 2048);  // a sanitizer keeps several bytes for each
#endif

    CHECK(send_until_full(client, data) == 0);  // a second in which nothing moves
    CHECK(comes_to_rest(server));
    CHECK(echoes(network.host, Network::vm_ip4, 7));

    client.shutdown_write();
    std::string expected;
    while (expected.size() < sent) expected += data;
    expected.resize(sent);
    CHECK(client.receive(sent) == expected);
    CHECK(client.at_end());
}

#ifdef NDEBUG  // sanitizers keep freed memory
TEST_CASE("stream: memory for clients that did not read is freed once they have read") {
    const Netns netns;
    for (const std::string limits : {"tcp_rmem", "tcp_wmem"})  // small buffers: the server soon has to keep bytes
        run_ok(netns, {"sh", "-c", "echo 4096 65536 65536 > /proc/sys/net/ipv4/" + limits});
    Server server(netns, {"--ports", "7", "--threads", "1"});
    REQUIRE(echoes(netns, "127.0.0.1", 7));
    const auto data = noise(1U << 20U);
    std::list<Client> clients;
    // The process may hold on to freed memory, but then the next clients get it.
    const auto growth = [&] {
        const long before = server.status_kb("VmRSS");
        std::list<std::pair<Client&, std::size_t>> stalled;
        for (int i = 0; i < 20; ++i) {
            auto& client = clients.emplace_back(netns, "127.0.0.1", 7);
            stalled.emplace_back(client, send_until_full(client, data, 20));
        }
        for (auto& [client, sent] : stalled) {
            REQUIRE(sent < data.size());
            CHECK(client.receive(sent) == data.substr(0, sent));
        }
        return server.status_kb("VmRSS") - before;
    };
    long kept = 0;
    for (int i = 0; i < 6; ++i) kept += growth();
    MESSAGE("kept after 120 clients: ", kept, " KiB");
    CHECK(kept < 1300);  // each needs 32 on average while it does not read
}
#endif

TEST_CASE("stream: urgent data comes back in its place") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    Client client(netns, "127.0.0.1", 7);
    client.send("before !", MSG_OOB);  // the last byte is the urgent one
    client.send(" after");
    CHECK(client.receive(14) == "before ! after");
    // All bytes are there when the server reads: recv(2) stops at urgent data.
    for (int i = 0; i < 3; ++i) {
        server.freeze();
        client.send("before !", MSG_OOB);
        client.send(" after");
        server.signal(SIGCONT);
        CHECK(client.receive(14) == "before ! after");
    }

    // In the middle of streams, which are spliced: splice(2) stops at urgent data.
    const auto data = noise(300'000);
    for (int i = 0; i < 20; ++i) {
        client.send(data, MSG_OOB);
        client.send(data);
        CHECK(client.receive(data.size()) == data);
        CHECK(client.receive(data.size()) == data);
    }
    // At the end of a stream, when the FIN is there already.
    const auto last = data.substr(0, 100'000);
    server.freeze();
    client.send(last, MSG_OOB);
    client.shutdown_write();
    REQUIRE(eventually([&] { return !run_ok(netns, {"ss", "-Htn", "state", "close-wait"}).empty(); }));
    server.signal(SIGCONT);
    CHECK(client.receive(last.size()) == last);
    CHECK(client.at_end());
}

TEST_CASE("stream: an urgent byte costs no CPU time while a firewall keeps back what is before it") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    Client client(network.host, Network::vm_ip4, 7);
    for (int i = 0; i < 2; ++i) {
        client.send("small");
        CHECK(client.receive(5) == "small");
    }
    const TempFile firewall(
        "table ip firewall { chain in { type filter hook input priority 0; ip length > 500 drop; }; }");
    run_ok(network.vm, {"nft", "-f", firewall.path()});
    const auto lost = noise(1000);
    client.send(lost);
    client.send("!", MSG_OOB);
    REQUIRE(eventually([&] { return run_ok(network.vm, {"ss", "-Htin"}).find("rcv_ooopack") != std::string::npos; }));
    CHECK(comes_to_rest(server));
    run_ok(network.vm, {"nft", "flush", "ruleset"});
    CHECK(client.receive(1001) == lost + "!");
}

TEST_CASE("stream: nothing of a client that is cut off gets to another client") {
    const Network network;
    const Server server(network.vm, {"--ports", "7", "--threads", "1"});
    Client other(network.host, Network::vm_ip4, 7);
    const auto data = noise(1U << 20U);
    const std::string unread(1U << 20U, 'u');
    for (int i = 0; i < 50; ++i) {
        Client client(network.host, Network::vm_ip4, 7);
        client.send(unread);
        reset(std::move(client));
        other.send(data);
        REQUIRE(other.receive(data.size()) == data);
    }
}

}  // namespace echo_server
