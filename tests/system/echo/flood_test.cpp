// SPDX-License-Identifier: BSD-2-Clause
// More connection attempts than the server answers.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <bit>
#include <csignal>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "support/client.h"
#include "support/server.h"
#include "support/shown_status.h"
#include "support/storm.h"

namespace echo_server {

namespace {

/// A SYN from `source` to port 7 of the attacked machine, with its IP header (RFC 791, RFC 9293).
struct Syn {
    iphdr ip{};
    tcphdr tcp{};

    explicit Syn(in_addr_t source) {
        ip.version = 4;
        ip.ihl = 5;
        ip.ttl = 64;
        ip.protocol = IPPROTO_TCP;
        ip.saddr = source;
        ::inet_pton(AF_INET, Network::vm_ip4, &ip.daddr);
        tcp.source = htons(static_cast<std::uint16_t>(1024 + source % 60000));
        tcp.dest = htons(7);
        tcp.doff = 5;
        tcp.syn = 1;
        tcp.window = htons(64000);
        tcp.check = checksum();
    }

 private:
    [[nodiscard]] std::uint16_t checksum() const {
        struct Covered {
            in_addr_t source, destination;
            std::uint16_t protocol, size;
            tcphdr tcp;
        };
        const Covered covered{ip.saddr, ip.daddr, htons(IPPROTO_TCP), htons(sizeof(tcp)), tcp};
        std::uint32_t sum = 0;
        for (const auto word : std::bit_cast<std::array<std::uint16_t, sizeof(covered) / 2>>(covered)) sum += word;
        while (sum >> 16U != 0) sum = (sum & 0xffffU) + (sum >> 16U);
        return static_cast<std::uint16_t>(~sum);
    }
};

/// Sends SYNs without a pause, each from another address, until the destructor.
class SynFlood {
 public:
    explicit SynFlood(const Netns& from) : socket_(open_socket(from)), storm_([this] { send(); }) {}

    [[nodiscard]] long sent() const { return sent_; }

 private:
    static Fd open_socket(const Netns& from) {
        const Netns::Entered entered(from);
        return Fd(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    }
    void send() {
        const Syn syn(htonl(0xc6120000U + next_++ % 0x20000U));  // 198.18.0.0/15, for benchmarks: RFC 2544
        const sockaddr_in to{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {syn.ip.daddr}, .sin_zero = {}};
        if (::sendto(socket_.get(), &syn, sizeof(syn), 0, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) ==
            sizeof(syn))
            ++sent_;
    }

    Fd socket_;
    std::uint32_t next_ = 0;
    std::atomic<long> sent_ = 0;
    Storm storm_;
};

/// A figure of /proc/net/netstat in a namespace.
long tcp_figure(const Netns& netns, const std::string& name) {
    std::istringstream file(run_ok(netns, {"cat", "/proc/net/netstat"}));
    std::string names;
    std::string values;
    std::getline(file, names);
    std::getline(file, values);
    std::istringstream name_words(names);
    std::istringstream value_words(values);
    for (std::string word, value; name_words >> word && value_words >> value;)
        if (word == name) return std::stol(value);
    FAIL("no such figure: ", name);
    return 0;
}

/// True if the accept queue of 8 has no room. It then holds 9 connections, or more: the kernel looks without a lock
/// whether it has room, so each CPU can let in a last connection.
bool queue_is_full(const Netns& netns) {
    const auto listener = only_status(netns)["listener"];
    return listener["backlog"] == 8 && listener["waiting"] > 8;
}

}  // namespace

TEST_CASE("flood: SYNs from made-up addresses cost no real client its connection" * doctest::test_suite("alone")) {
    const Network network;
    run_ok(network.vm, {"ip", "route", "add", "198.18.0.0/15", "via", Network::host_ip4});
    const Server server(network.vm, {"--ports", "7"});
    Client witness(network.host, Network::vm_ip4, 7);
    const SynFlood flood(network.host);
    // The kernel answers by SYN cookies when its queue is full.
    REQUIRE(eventually([&] { return tcp_figure(network.vm, "SyncookiesSent") > 1000; }));
    int served = 0;
    for (int i = 0; i < 100; ++i) {
        if (echoes(network.host, Network::vm_ip4, 7)) ++served;
        if (echoes(network.host, Network::vm_ip6, 7)) ++served;
    }
    CHECK(served == 200);
    CHECK(tcp_figure(network.vm, "SyncookiesRecv") > 0);
    witness.send("still here");
    CHECK(witness.receive(10) == "still here");
    MESSAGE("SYNs sent meanwhile: ", flood.sent());
}

TEST_CASE("flood: when the accept queue is full clients wait, and all are served in the end" *
          doctest::test_suite("alone")) {
    const Netns netns;
    set_sysctl(netns, "net/core/somaxconn", "8");
    set_sysctl(netns, "net/ipv4/tcp_syncookies", "0");  // the kernel then resets some connections of every listener
    const Server server(netns, {"--ports", "7"});
    server.freeze();
    std::atomic<int> served = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 25; ++i)
        clients.emplace_back([&, i] {
            if (echoes(netns, i % 2 == 0 ? "127.0.0.1" : "::1", 7)) ++served;
        });
    const bool full = eventually([&] { return tcp_figure(netns, "ListenOverflows") > 0 && queue_is_full(netns); });
    server.signal(SIGCONT);
    clients.clear();
    CHECK(full);
    CHECK(served.load() == 25);
}

}  // namespace echo_server
