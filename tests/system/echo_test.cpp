// SPDX-License-Identifier: BSD-2-Clause
// RFC 862 as clients of all kinds see it.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <csignal>
#include <list>
#include <random>
#include <string>
#include <utility>

#include "client.h"
#include "endpoint.h"
#include "listener.h"
#include "server.h"

namespace {

std::string noise(std::size_t size) {
    std::mt19937_64 random(862);
    std::string data(size, '\0');
    for (auto& byte : data) byte = static_cast<char>(random());
    return data;
}

/// Sends `data` again and again until the server has taken nothing for so long; returns how many bytes it took.
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

/// Ends the connection by a RST instead of a FIN.
void reset(Client client) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    REQUIRE(::setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
}

}  // namespace

TEST_CASE("echo: a byte at a time, in order, both families") {
    const Network network;
    Server server(network.vm, {"--ports", "7"});
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

TEST_CASE("echo: 100 MiB through nc come back identical") {
    const Network network;
    Server server(network.vm, {"--ports", "7"});
    const TempFile sent(noise(100U << 20U));
    const TempFile received("");
    run_ok(network.host, {"sh", "-c", "nc -N 192.0.2.2 7 < " + sent.path() + " > " + received.path()});
    run_ok(network.host, {"cmp", sent.path(), received.path()});
}

TEST_CASE("echo: after a half-close everything still owed is sent, then our FIN") {
    const Network network;
    Server server(network.vm, {"--ports", "7"});
    Client client(network.host, Network::vm_ip4, 7);
    const auto data = noise(1U << 20U);
    client.send(data);
    client.shutdown_write();
    CHECK(client.receive(data.size()) == data);
    CHECK(client.at_end());
}

TEST_CASE("echo: a client that never reads costs bounded memory and no CPU, and loses nothing") {
    const Network network;
    Server server(network.vm, {"--ports", "7"});
    REQUIRE(echoes(network.host, Network::vm_ip4, 7));  // so that all code is in memory
    const long memory = server.status_kb("VmRSS");
    Client client(network.host, Network::vm_ip4, 7);
    const auto data = noise(1U << 20U);
    const auto sent = send_until_full(client, data);
    const long grown = server.status_kb("VmRSS") - memory;
    MESSAGE("taken before the server stopped reading: ", sent >> 10U, " KiB, of that in its process: ", grown, " KiB");
    CHECK(sent < (24U << 20U));  // twice tcp_wmem and tcp_rmem, which are 4 and 6 MiB at most by default
#ifdef NDEBUG
    CHECK(grown < 256);
#else
    CHECK(grown < 2048);  // a sanitizer keeps several bytes for each
#endif

    const auto cpu = server.cpu_time();
    CHECK(send_until_full(client, data) == 0);  // a second in which nothing moves
    CHECK(server.cpu_time() - cpu < std::chrono::milliseconds(30));
    CHECK(echoes(network.host, Network::vm_ip4, 7));

    client.shutdown_write();
    std::string expected;
    while (expected.size() < sent) expected += data;
    expected.resize(sent);
    CHECK(client.receive(sent) == expected);
    CHECK(client.at_end());
}

#ifdef NDEBUG  // sanitizers keep what is freed
TEST_CASE("echo: what was kept for clients that did not read is given back once they have") {
    const Netns netns;
    for (const std::string limits : {"tcp_rmem", "tcp_wmem"})  // small ones: the server has to keep something soon
        run_ok(netns, {"sh", "-c", "echo 4096 65536 65536 > /proc/sys/net/ipv4/" + limits});
    Server server(netns, {"--ports", "7", "--threads", "1"});
    REQUIRE(echoes(netns, "127.0.0.1", 7));
    const auto data = noise(1U << 20U);
    std::list<Client> clients;
    // The process may hold on to what is given back, but then the next ones get that.
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
    CHECK(kept < 1300);  // each takes 32 on average while it does not read
}
#endif

TEST_CASE("echo: urgent data comes back in its place") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    Client client(netns, "127.0.0.1", 7);
    client.send("before !", MSG_OOB);  // the last byte is the urgent one
    client.send(" after");
    CHECK(client.receive(14) == "before ! after");

    // In the middle of streams, which are spliced: splice(2) does not go beyond urgent data.
    const auto data = noise(300'000);
    for (int i = 0; i < 20; ++i) {
        client.send(data, MSG_OOB);
        client.send(data);
        CHECK(client.receive(data.size()) == data);
        CHECK(client.receive(data.size()) == data);
    }
    // At the end of a stream, with the FIN there already.
    const auto last = data.substr(0, 100'000);
    server.signal(SIGSTOP);
    client.send(last, MSG_OOB);
    client.shutdown_write();
    REQUIRE(eventually([&] { return !run_ok(netns, {"ss", "-Htn", "state", "close-wait"}).empty(); }));
    server.signal(SIGCONT);
    CHECK(client.receive(last.size()) == last);
    CHECK(client.at_end());
}

TEST_CASE("echo: a client that resets harms nobody else") {
    const Network network;
    Server server(network.vm, {"--ports", "7"});
    Client other(network.host, Network::vm_ip4, 7);
    for (int i = 0; i < 100; ++i) {
        Client client(network.host, Network::vm_ip4, 7);
        client.send(noise(1000));
        reset(std::move(client));
    }
    other.send("still here");
    CHECK(other.receive(10) == "still here");
    CHECK(echoes(network.host, Network::vm_ip4, 7));
}

TEST_CASE("echo: of streams that are cut off nothing gets to others") {
    const Network network;
    Server server(network.vm, {"--ports", "7", "--threads", "1"});
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

TEST_CASE("echo: --verbose names the client and the address and port that it dialled") {
    const Network network;
    Server server(network.vm, {"--ports", "7,77", "--verbose"});
    REQUIRE(echoes(network.host, Network::vm_ip4, 77));
    const auto line = server.wait_for("connection from ");
    CHECK(line.starts_with("connection from 192.0.2.1:"));
    CHECK(line.ends_with(" to 192.0.2.2:77"));
    REQUIRE(echoes(network.host, Network::vm_ip6, 7));
    CHECK(server.wait_for("connection from ").ends_with(" to [2001:db8::2]:7"));

    // As a scanner does it.
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

    auto most = run_ok(netns, {"cat", "/proc/sys/net/core/somaxconn"});
    most.pop_back();
    CHECK(run_ok(netns, {"ss", "-Hltn"}).find(" " + most + " ") != std::string::npos);
}

TEST_CASE("listener: an address of this machine only, of all interfaces, and one that the kernel chooses") {
    const Network network;
    {
        Server server(network.vm, {"--ports", "7", "--listen", "0.0.0.0:7777"});
        CHECK(echoes(network.host, Network::vm_ip4, 7777));
        CHECK(try_connect(network.host, Network::vm_ip6, 7777) == ECONNREFUSED);
        CHECK(echoes(network.host, Network::vm_ip6, 7));
    }
    {
        Server server(network.vm, {"--ports", "7", "--listen", "[::]:7777"});
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
