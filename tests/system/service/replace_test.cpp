// SPDX-License-Identifier: BSD-2-Clause
// --replace: a new process takes over, and no client notices.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <iterator>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "support/client.h"
#include "support/server.h"
#include "support/storm.h"

namespace echo_server {

namespace {

std::string pattern(std::size_t size, unsigned seed) {
    std::string text(size, '\0');
    for (auto& c : text) c = static_cast<char>((seed = seed * 1664525U + 1013904223U) >> 24U);
    return text;
}

/// A client that sends and checks until it is told to stop; then it expects the rest of its bytes and a clean end.
class Stream {
 public:
    Stream(const Netns& netns, const std::string& address, std::uint16_t port, unsigned seed)
        : client_(netns, address, port), seed_(seed), storm_([this] { send_and_check(); }) {}

    /// Empty after success.
    std::string finish() {
        storm_.stop();
        if (!failure_.empty()) return failure_;
        client_.shutdown_write();
        return client_.at_end() ? "" : fmt::format("end: error {}", client_.error());
    }

 private:
    void send_and_check() {
        if (!failure_.empty()) return;
        const auto sent = pattern(10000, seed_++);
        client_.send(sent);
        const auto received = client_.receive(sent.size());
        if (received == sent) return;
        failure_ = fmt::format("piece {}: {} bytes, error {}", storm_.times(), received.size(), client_.error());
    }

    Client client_;
    unsigned seed_;
    std::string failure_;
    Storm storm_;
};

}  // namespace

TEST_CASE("replace: fifty in a row cost no client anything") {
    const Network network;
    std::atomic<int> served = 0;
    std::atomic<int> failed = 0;
    std::atomic<int> last_error = 0;
    const auto connect_to = [&](const std::string& address) {
        Client client(network.host, address, 7);
        client.send("steady");
        client.shutdown_write();
        const bool good = client.receive(6) == "steady" && client.at_end();
        ++(good ? served : failed);
        if (!good) last_error = client.error();
    };
    const Command arguments{"--ports", "7,77", "--replace", "--drain-timeout", "3600"};
    std::list<Server> servers;
    servers.emplace_back(network.vm, arguments);
    std::list<Stream> streams;
    streams.emplace_back(network.host, Network::vm_ip4, 77, 1);
    std::list<Storm> clients;
    for (const std::string address : {Network::vm_ip4, Network::vm_ip6, Network::vm_ip4})
        clients.emplace_back([&connect_to, address] { connect_to(address); });

    for (unsigned i = 0; i < 50; ++i) {
        const auto before = servers.back().pid();
        auto& server = servers.emplace_back(network.vm, arguments);
        // The previous server may still run.
        CHECK(server.output().find(fmt::format("\n  replaces   process {}, ", before)) != std::string::npos);
        if (i % 10 == 5) streams.emplace_back(network.host, Network::vm_ip6, 77, i * 1000);
    }
    clients.clear();
    MESSAGE("connections served meanwhile: ", served.load());
    CHECK(served > 200);
    CAPTURE(last_error.load());
    CHECK(failed.load() == 0);
    for (auto& stream : streams) CHECK(stream.finish() == "");

    auto& last = servers.back();
    for (auto& server : servers) {
        if (&server == &last) continue;
        CHECK(server.wait() == 0);
        CHECK(server.output().find("\nreplaced: another process serves from now on\n") != std::string::npos);
        CHECK(server.output().ends_with("\nstopped\n"));
    }
    const BpfObjects objects(network.vm);  // fails unless there is exactly one link
    CHECK(echoes(network.host, Network::vm_ip4, 7));
    last.signal(SIGTERM);
    CHECK(last.wait() == 0);
    CHECK(objects.gone());
}

TEST_CASE("replace: while servers replace each other, each status shows one that serves") {
    const Netns netns;
    const Command arguments{"--ports", "7", "--replace", "--drain-timeout", "0"};
    std::list<Server> servers;
    servers.emplace_back(netns, arguments);
    std::vector<std::string> shown;
    Storm reader([&] { shown.push_back(run(netns, echo_server({"status", "--json"})).output); });
    for (int i = 0; i < 40; ++i) {
        const auto before = reader.times();
        servers.emplace_back(netns, arguments);
        // A read meets at most two replacements, because it gives up after a while.
        REQUIRE(eventually([&] { return reader.times() > before; }));
    }
    reader.stop();
    const auto showing = [&](std::string_view state) {
        return std::ranges::count_if(shown, [&](const std::string& text) {
            return text.find(fmt::format(R"("state": "{}")", state)) != std::string::npos;
        });
    };
    CHECK(showing("serving") == std::ssize(shown));
    CHECK(showing("waiting") == 0);
}

TEST_CASE("replace: connections that nobody has accepted yet are served by the new process") {
    const Netns netns;
    Server older(netns, {"--ports", "7", "--drain-timeout", "0"});
    older.freeze();
    std::list<Client> queued;
    for (int i = 0; i < 100; ++i) queued.emplace_back(netns, "127.0.0.1", 7).send("queued");
    const Server newer(netns, {"--ports", "7", "--replace"});
    older.signal(SIGCONT);
    int served = 0;
    for (auto& client : queued)
        if (client.receive(6) == "queued") ++served;
    CHECK(served == 100);
    CHECK(older.wait() == 0);
}

TEST_CASE("replace: the old process ends its connections within its drain timeout") {
    const Netns netns;
    Server older(netns, {"--ports", "7", "--drain-timeout", "1"});
    Client client = connected(netns, 7);
    const Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(older.wait_for("stopping") == "stopping; waiting up to 1 s for 1 connection");
    CHECK(older.wait() == 0);
    CHECK(older.output().ends_with("\nstopped; 1 connection cut off\n"));
    CHECK(client.at_end());
    CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
