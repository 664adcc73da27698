// SPDX-License-Identifier: BSD-2-Clause
// Ten thousand clients that behave badly, beside a client that behaves well.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <string>
#include <string_view>

#include "base/os.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

constexpr int crowd = 10000;

// The limit of each client's wait. A crowd sends more packets than the kernel keeps (net.core.netdev_max_backlog), and
// a client sends a lost SYN again after a second, and then after two (RFC 6298).
constexpr auto patience = 3s;

// The longest time of an ordinary connection, from connect to end.
std::chrono::milliseconds slowest_echo(const Netns& netns, const std::string& address, int times) {
    auto slowest = 0ms;
    for (int i = 0; i < times; ++i) {
        const auto start = steady_clock::now();
        CHECK(echoes(netns, address, 7));
        slowest = std::max(slowest, std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - start));
    }
    return slowest;
}

}  // namespace

TEST_CASE("crowd: 10,000 clients that never send cost little memory and no CPU time, and nobody waits for them" *
          doctest::test_suite("alone")) {
    raise_descriptor_limit();
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    REQUIRE(echoes(netns, "127.0.0.1", 7));
    [[maybe_unused]] const long memory = server.status_kb("VmRSS");
    std::list<Client> silent;
    for (int i = 0; i < crowd; ++i) {
        auto& client = silent.emplace_back(netns, i % 2 == 0 ? "127.0.0.1" : "::1", 7);
        REQUIRE(client.error() == 0);
    }
    REQUIRE(eventually([&] { return status_shows(netns, fmt::format("  {} open of at most ", crowd)); }));
#ifdef NDEBUG  // sanitizers keep much more
    CHECK((server.status_kb("VmRSS") - memory) * 1024 < crowd * 400);
#endif
    CHECK(comes_to_rest(server));
    CHECK(slowest_echo(netns, "127.0.0.1", 100) < patience);
    silent.clear();
    CHECK(eventually([&] { return status_shows(netns, "  0 open of at most "); }));
}

TEST_CASE("crowd: 10,000 slow readers get every byte, and nobody waits for them" * doctest::test_suite("alone")) {
    constexpr std::size_t size = 48000;
    constexpr std::size_t piece = 6000;
    raise_descriptor_limit();
    // Each client sends its own part of this.
    std::string text(size + crowd, '\0');
    for (unsigned seed = 1; auto& c : text) c = static_cast<char>((seed = seed * 1664525U + 1013904223U) >> 24U);
    const Network network;
    // So the kernel keeps little for slow readers, and the server has to keep the rest.
    set_sysctl(network.host, "net/ipv4/tcp_rmem", "4096 8192 8192");
    set_sysctl(network.vm, "net/ipv4/tcp_wmem", "4096 8192 8192");
    const Server server(network.vm, {"--ports", "7"});
    std::list<Client> slow;
    for (std::size_t i = 0; i < crowd; ++i) {
        auto& client = slow.emplace_back(network.host, Network::vm_ip4, 7);
        client.send(std::string_view(text).substr(i, size));
        client.shutdown_write();
        REQUIRE(client.error() == 0);
    }
    CHECK(eventually([&] { return status_shows(network.vm, fmt::format("  {} open of at most ", crowd)); }));
#ifdef NDEBUG
    CHECK(server.status_kb("VmRSS") < crowd * 80L);  // the limit is 64 KiB for each client, and some more for all
#endif
    CHECK(comes_to_rest(server));

    auto slowest = 0ms;
    int identical = 0;
    for (std::size_t at = 0; at < size; at += piece) {
        std::size_t i = at;
        for (auto& client : slow)
            if (client.receive(piece) == std::string_view(text).substr(i++, piece)) ++identical;
        slowest = std::max(slowest, slowest_echo(network.host, Network::vm_ip4, 20));
    }
    CHECK(identical == crowd * static_cast<int>(size / piece));
    CHECK(slowest < patience);
    MESSAGE("slowest of the others: ", slowest.count(), " ms");
    int ended = 0;
    for (auto& client : slow)
        if (client.at_end()) ++ended;
    CHECK(ended == crowd);
}

}  // namespace echo_server
