// SPDX-License-Identifier: BSD-2-Clause
// Clients that do not take their bytes, or are gone: how their connections end, when, and what they cost until then.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <list>
#include <regex>
#include <string>
#include <thread>

#include "echo_dispatch.h"
#include "net/sockets.h"
#include "support/client.h"
#include "support/server.h"

using namespace std::chrono_literals;

namespace echo_server {

namespace {

constexpr std::size_t piece = 32768;  // the server reads it in one go
constexpr auto longest_wait = 4 * time_limit;

/// A client whose socket has room for few bytes.
Client small_client(const Netns& netns, const std::string& address, int room = 4096) {
    Client client(netns, address, 7);
    REQUIRE(::setsockopt(client.fd(), SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)) == 0);
    return client;
}

struct Bytes {
    std::size_t received = 0;
    std::size_t sent = 0;
};

/// The bytes that the only server has received and sent back, from its map echo_counters: 'status' would need a
/// process for each look, and a client has a minute.
class Counters {
 public:
    explicit Counters(const Netns& netns)
        : map_(bpf_map_get_fd_by_id(static_cast<__u32>(std::stoul(BpfObjects(netns).maps.at("echo_counters"))))) {
        REQUIRE(map_);
    }

    [[nodiscard]] Bytes bytes() const {
        Bytes sum;
        echo_counters of_thread{};
        for (__u32 thread = 0; bpf_map_lookup_elem(map_.get(), &thread, &of_thread) == 0; ++thread) {
            sum.received += of_thread.received;
            sum.sent += of_thread.sent;
        }
        return sum;
    }

 private:
    Fd map_;
};

/// Sends until the server owes bytes. It has received everything: nothing waits in its socket.
void make_owe(const Netns& netns, Client& client) {
    const Counters counters(netns);
    const auto before = counters.bytes();
    // A server that was interrupted between recv(2) and send(2) owes nothing: it has to owe for several looks, with a
    // process that starts and ends between two of them.
    const auto owes = [&] {
        for (int look = 0; look < 10; ++look) {
            if (const auto now = counters.bytes(); now.sent - before.sent == now.received - before.received)
                return false;
            run_ok(netns, {"true"});
        }
        return true;
    };
    for (std::size_t size = piece; !owes(); size += piece) {
        client.send(std::string(piece, 'o'));
        REQUIRE(client.error() == 0);
        REQUIRE(eventually([&] { return counters.bytes().received - before.received == size; }));
    }
}

/// Reads to the end: ENODATA for a FIN, ECONNRESET for a reset.
int end_of(Client& client) {
    while (client.error() == 0) client.receive(piece);
    return client.error();
}

std::string echo_once(Client& client) {
    client.send("x");
    return client.receive(1);
}

/// The lines of ss(8) about the connections of port 7, with their memory.
std::string connections(const Netns& netns) {
    return run_ok(netns, {"ss", "-OtanmH", "state", "all", "exclude", "listening", "sport = :7"});
}

std::uint16_t port_of(const Client& client) { return local_endpoint(client.fd()).port(); }

bool is_known(const Netns& netns, const Client& client) {
    return connections(netns).find(fmt::format(":{} ", port_of(client))) != std::string::npos;
}

}  // namespace

TEST_CASE("owed: an end with bytes owed is a reset, and an end with no bytes owed is a FIN") {
    struct Case {
        const char* name;
        Command flags;
        std::function<void(Server&)> end;
        int end_of_idle;
    };
    const Netns netns;
    const std::list<Case> cases = {
        {"--idle-timeout",
         {"--idle-timeout", "3"},
         [&](Server&) { REQUIRE(eventually([&] { return status_shows(netns, "  0 open of at most "); })); },
         ENODATA},
        {"--drain-timeout",
         {"--drain-timeout", "1"},
         [](Server& server) {
             server.signal(SIGTERM);
             CHECK(server.wait() == 0);
         },
         ENODATA},
        {"killed",
         {},
         [](Server& server) {
             server.signal(SIGKILL);
             CHECK(server.wait() == -SIGKILL);
         },
         ECONNRESET},
    };
    for (const auto& row : cases) {
        CAPTURE(row.name);
        Command flags{"--ports", "7"};
        flags.insert(flags.end(), row.flags.begin(), row.flags.end());
        Server server(netns, flags);
        auto owed = small_client(netns, "127.0.0.1");
        make_owe(netns, owed);
        Client idle = connected(netns, 7);
        row.end(server);
        CHECK(end_of(idle) == row.end_of_idle);
        CHECK(end_of(owed) == ECONNRESET);
    }
}

TEST_CASE("owed: a client that takes its bytes slowly is not idle") {
    const Network network;
    const Server server(network.vm, {"--ports", "7", "--idle-timeout", "4"});
    auto slow = small_client(network.host, Network::vm_ip4, 65536);
    make_owe(network.vm, slow);
    const auto start = std::chrono::steady_clock::now();
    for (auto now = start; now - start < 12s; now = std::chrono::steady_clock::now()) {
        slow.receive(16384);  // the kernel reports room half a buffer of the client at a time
        REQUIRE(slow.error() == 0);
        std::this_thread::sleep_for(100ms);
    }
}

TEST_CASE("owed: a client that does not read costs the kernel at most 8 MiB, whatever the limits of the host are") {
    constexpr std::size_t most = 8U << 20U;
    const Network network;
    for (const auto* netns : {&network.host, &network.vm})
        for (const std::string limits : {"tcp_rmem", "tcp_wmem"})
            set_sysctl(*netns, "net/ipv4/" + limits, "4096 131072 67108864");
    Server older(network.vm, {"--ports", "7"});
    const auto check = [&](const Server& server) {
        const Client client(network.host, Network::vm_ip4, 7);
        const std::string much(1U << 20U, 'm');
        std::string taken(much.size(), '\0');
        // A stream first: for it the kernel makes its buffers larger.
        std::size_t received = 0;
        for (std::size_t sent = 0; sent < (64U << 20U);) {
            pollfd ready{.fd = client.fd(), .events = POLLIN | POLLOUT, .revents = 0};
            REQUIRE(::poll(&ready, 1, 60'000) == 1);
            const auto more = ::send(client.fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += static_cast<std::size_t>(std::max<ssize_t>(more, 0));
            const auto some = ::recv(client.fd(), taken.data(), taken.size(), MSG_DONTWAIT);
            received += static_cast<std::size_t>(std::max<ssize_t>(some, 0));
        }
        REQUIRE(received > (32U << 20U));
        // "skmem:(r4718000,rb4718592,t0,tb3407872,f0,w3407000,...)", in bytes: received, and queued to be sent
        std::size_t kept = 0;
        const auto fill = [&] {
            while (::send(client.fd(), much.data(), much.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
            const auto text = connections(network.vm);
            std::smatch match;
            REQUIRE(std::regex_search(text, match, std::regex(R"(skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f\d+,w(\d+),)")));
            kept = std::stoul(match[1]) + std::stoul(match[2]);
            return kept > most / 2;
        };
        CHECK(eventually(fill));
        CHECK(comes_to_rest(server));
        fill();
        MESSAGE("bytes received and not read, and to be sent: ", kept);
        CHECK(kept <= most);
    };
    check(older);
    const Server newer(network.vm, {"--ports", "7", "--replace"});  // it takes the socket of the older
    CHECK(older.wait() == 0);
    check(newer);
}

TEST_CASE("owed: a client that takes nothing is reset after about a minute, half-closed or not; a slow one stays") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    auto silent = small_client(network.host, Network::vm_ip4);
    make_owe(network.vm, silent);
    // For these two the server's process owes nothing: the bytes are in the kernel.
    auto half_closed = small_client(network.host, Network::vm_ip6);
    auto in_kernel = small_client(network.host, Network::vm_ip4);
    for (auto* client : {&half_closed, &in_kernel}) client->send(std::string(50 * piece, 'k'));
    auto slow = small_client(network.host, Network::vm_ip6, 65536);
    make_owe(network.vm, slow);
    Client idle = connected(network.host, 7, Network::vm_ip4);
    REQUIRE(is_known(network.vm, half_closed));

    const auto start = std::chrono::steady_clock::now();
    auto last_taken = start;
    bool is_half_closed = false;
    CHECK(eventually(
        [&] {
            // In a minute this takes less than a third of the server's buffer, at which epoll(7) would report room.
            if (std::chrono::steady_clock::now() - last_taken > 250ms) {
                last_taken = std::chrono::steady_clock::now();
                slow.receive(4096);
            }
            REQUIRE(slow.error() == 0);
            // Within the minute: a FIN does not begin another minute.
            if (!is_half_closed && std::chrono::steady_clock::now() - start > 40s) {
                half_closed.shutdown_write();
                is_half_closed = true;
            }
            return !is_known(network.vm, silent) && !is_known(network.vm, half_closed) &&
                   !is_known(network.vm, in_kernel);
        },
        longest_wait));
    CHECK(eventually([&] { return status_shows(network.vm, "  2 open of at most "); }));
    CHECK(status_shows(network.vm, ", 5 in all, 0 out of memory, 3 timed out\n"));
    for (auto* client : {&silent, &half_closed, &in_kernel}) CHECK(end_of(*client) == ECONNRESET);
    CHECK(is_known(network.vm, slow));
    CHECK(echo_once(idle) == "x");
}

TEST_CASE("owed: the minute begins with the last acknowledgment, also before an end, and again with new bytes") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    // The server looks each second, and resets at the 61st look.
    const auto start = std::chrono::steady_clock::now();
    auto ending = small_client(network.host, Network::vm_ip4, 65536);
    ending.send(std::string(50 * piece, 'k'));
    Client again = connected(network.host, 7, Network::vm_ip4);
    std::this_thread::sleep_until(start + 15s);
    run_ok(network.vm, {"nft", "add table inet t"});
    run_ok(network.vm, {"nft", "add chain inet t c { type filter hook output priority 0; }"});
    run_ok(network.vm, {"nft", fmt::format("add rule inet t c tcp dport {} drop", port_of(again))});
    again.send("x");
    std::this_thread::sleep_until(start + 50s);
    CHECK(ending.receive(20 * piece).size() == 20 * piece);  // more than its buffer has: it must acknowledge some
    std::this_thread::sleep_until(start + 51s);
    ending.shutdown_write();
    std::this_thread::sleep_until(start + 66s);
    CHECK(is_known(network.vm, ending));
    CHECK(is_known(network.vm, again));
}

TEST_CASE("owed: a peer that is dead is gone after two minutes; an idle one stays, though probes are lost") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    Client dead = connected(network.host, 7, Network::vm_ip4);
    Client idle = connected(network.host, 7, Network::vm_ip4);
    const auto nft = [&](const std::string& text) { return run_ok(network.vm, {"nft", text}); };
    nft("add table inet t");
    nft("add chain inet t c { type filter hook output priority 0; }");
    nft(fmt::format("add rule inet t c tcp dport {} counter drop", port_of(dead)));
    nft("add chain inet t lost { type filter hook output priority 1; }");
    nft(fmt::format("add rule inet t lost tcp dport {} counter drop", port_of(idle)));
    CHECK(eventually([&] { return nft("list chain inet t lost").find("packets 3 ") != std::string::npos; },
                     longest_wait));
    nft("flush chain inet t lost");
    CHECK(eventually([&] { return !is_known(network.vm, dead); }, longest_wait));
    CHECK(is_known(network.vm, idle));
    CHECK(eventually([&] { return status_shows(network.vm, "  1 open of at most "); }));
    CHECK(echo_once(idle) == "x");
}

}  // namespace echo_server
