// SPDX-License-Identifier: BSD-2-Clause
// Clients whose handshake is under way when the server stops: after the kernel's answer the connection exists for them.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <string>

#include "base/fd.h"
#include "net/listener.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

namespace fs = std::filesystem;

/// The listening socket of a process.
Fd listener_of(const Process& process) {
    const Fd opened(static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0)));
    REQUIRE(opened);
    for (const auto& entry : fs::directory_iterator(fmt::format("/proc/{}/fd", process.pid()))) {
        if (!fs::read_symlink(entry).string().starts_with("socket:")) continue;
        const int number = std::stoi(entry.path().filename());
        Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, opened.get(), number, 0)));
        if (copy && is_listening(copy.get())) return copy;
    }
    FAIL("it has no listening socket");
    return {};
}

template <std::size_t size>
void attach_filter(const Fd& listener, std::array<sock_filter, size> program) {
    const sock_fprog filter{.len = size, .filter = program.data()};
    REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) == 0);
}

/// The listening socket receives only SYNs, so that no handshake ends. Packets that clients send after receive_all()
/// end the handshake.
void receive_syns_alone(const Fd& listener) {
    constexpr unsigned flags = 13;  // offset in a TCP header
    constexpr unsigned ack = 0x10;
    attach_filter(listener, std::array{
                                sock_filter BPF_STMT(BPF_LD | BPF_B | BPF_ABS, flags),
                                sock_filter BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, ack, 0, 1),
                                sock_filter BPF_STMT(BPF_RET | BPF_K, 0),
                                sock_filter BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
                            });
}

/// The listening socket receives nothing from this client.
void receive_all_but(const Fd& listener, const Client& client) {
    constexpr unsigned source_port = 0;  // offset in a TCP header
    sockaddr_in local{};
    socklen_t size = sizeof(local);
    REQUIRE(::getsockname(client.fd(), reinterpret_cast<sockaddr*>(&local), &size) == 0);
    attach_filter(listener, std::array{
                                sock_filter BPF_STMT(BPF_LD | BPF_H | BPF_ABS, source_port),
                                sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohs(local.sin_port), 0, 1),
                                sock_filter BPF_STMT(BPF_RET | BPF_K, 0),
                                sock_filter BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
                            });
}

void receive_all(const Fd& listener) {
    const int nothing = 0;
    REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(nothing)) == 0);
}

constexpr auto waiting = "stopping: the ports are closed; waiting up to 3600 s for clients that are not accepted yet";

}  // namespace

TEST_CASE("stop: a client whose handshake is under way is served") {
    const Netns netns;
    for (const std::string address : {"127.0.0.1", "::1"}) {
        CAPTURE(address);
        Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
        receive_syns_alone(listener_of(server));
        Client client(netns, address, 7);
        REQUIRE(client.error() == 0);
        server.signal(SIGTERM);
        CHECK(server.next_line() == waiting);
        CHECK(try_connect(netns, address, 7) == ECONNREFUSED);
        receive_all(listener_of(server));
        client.send("late");
        CHECK(client.receive(4) == "late");
        client.shutdown_write();
        CHECK(client.at_end());
        CHECK(server.wait() == 0);
        CHECK(server.output().ends_with("\nstopped\n"));
    }
}

TEST_CASE("stop: a client that never ends its handshake is waited for until the drain timeout") {
    const Netns netns;
    for (const std::string timeout : {"0", "1"}) {
        Server server(netns, {"--ports", "7", "--drain-timeout", timeout});
        receive_syns_alone(listener_of(server));
        const Client client(netns, "127.0.0.1", 7);
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
        CHECK(server.output().ends_with("\nstopped\n"));
        CHECK(count(server.output(), "clients that are not accepted yet") == (timeout == "0" ? 0 : 1));
    }
}

TEST_CASE("stop: a handshake that begins after the stop is not waited for") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
    const auto listener = listener_of(server);
    receive_syns_alone(listener);
    Client client(netns, "127.0.0.1", 7);
    server.signal(SIGTERM);
    CHECK(server.next_line() == waiting);
    const Client late(netns, "127.0.0.1", 7777);  // the socket's own port is open as long as the socket is
    REQUIRE(late.error() == 0);
    receive_all_but(listener, late);
    client.send("x");
    CHECK(client.receive(1) == "x");
    client.shutdown_write();
    CHECK(client.at_end());
    REQUIRE(ends(server));
    CHECK(server.wait() == 0);
}

TEST_CASE("stop: as many handshakes as are accepted in a row") {
    constexpr std::size_t in_a_row = 256;
    const Netns netns;
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
    const auto listener = listener_of(server);
    receive_syns_alone(listener);
    std::deque<Client> clients;
    while (clients.size() < in_a_row) clients.emplace_back(netns, "127.0.0.1", 7);
    server.signal(SIGTERM);
    CHECK(server.next_line() == waiting);
    server.freeze();
    receive_all(listener);
    for (auto& client : clients) client.send("x");
    server.signal(SIGCONT);
    for (auto& client : clients) {
        CHECK(client.receive(1) == "x");
        client.shutdown_write();
        CHECK(client.at_end());
    }
    REQUIRE(ends(server));
    CHECK(server.wait() == 0);
}

TEST_CASE("stop: a handshake with somebody else's port is not waited for") {
    const Netns netns;
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77, "other");
    receive_syns_alone(Fd(::dup(other.fd())));
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600"});
    const Client client(netns, "127.0.0.1", 77);
    REQUIRE(client.error() == 0);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK(count(server.output(), "waiting up to") == 0);
}

}  // namespace echo_server
