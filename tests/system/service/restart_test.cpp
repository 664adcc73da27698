// SPDX-License-Identifier: BSD-2-Clause
// Stops and starts while clients come without a pause.
#include <bpf/bpf.h>
#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <list>
#include <string>

#include "support/client.h"
#include "support/server.h"
#include "support/storm.h"

namespace echo_server {

namespace {

/// Clients that connect, send and check, again and again, on threads of their own, until finish().
class Load {
 public:
    explicit Load(const Network& network) {
        for (const std::string address : {Network::vm_ip4, Network::vm_ip6, Network::vm_ip4})
            storms_.emplace_back([this, &network, address] { connect(network.host, address); });
    }

    void finish() { storms_.clear(); }
    [[nodiscard]] int served() const { return served_; }
    /// The number of connections that failed after they were made, and of connections with a wrong answer.
    [[nodiscard]] int broken() const { return broken_; }
    [[nodiscard]] int wrong() const { return wrong_; }

 private:
    void connect(const Netns& from, const std::string& address) {
        Client client(from, address, 7);
        if (client.error() != 0) return;
        client.send("steady");
        client.shutdown_write();
        const auto received = client.receive(6);
        if (received == "steady" && client.at_end())
            ++served_;
        else
            ++(std::string("steady").starts_with(received) ? broken_ : wrong_);
    }

    std::atomic<int> served_ = 0;
    std::atomic<int> broken_ = 0;
    std::atomic<int> wrong_ = 0;
    std::list<Storm> storms_;
};

}  // namespace

TEST_CASE("restart: killed and started a hundred times under load, it is back each time, and leaves nothing") {
    const Network network;
    Load load(network);
    for (int i = 0; i < 100; ++i) {
        CAPTURE(i);
        Server server(network.vm, {"--ports", "1-1000", "--threads", "2"});
        REQUIRE(echoes(network.host, i % 2 == 0 ? Network::vm_ip4 : Network::vm_ip6, 77));
        const int served = load.served();
        REQUIRE(eventually([&] { return load.served() > served; }));
        server.signal(SIGKILL);
        REQUIRE(server.wait() == -SIGKILL);
    }
    load.finish();
    CHECK(load.wrong() == 0);
    MESSAGE("connections served: ", load.served(), ", cut off: ", load.broken());
    CHECK(nothing_left(network.vm));
    CHECK(try_connect(network.host, Network::vm_ip4, 7) == ECONNREFUSED);
}

TEST_CASE("restart: what the kernel keeps of a killed server does not stop the next start") {
    const Network network;
    Server killed(network.vm, {"--ports", "7,77"});
    // A tool such as bpftool or 'echo-server status' holds the objects open.
    Fd kept(bpf_link_get_fd_by_id(static_cast<__u32>(std::stoul(BpfObjects(network.vm).link))));
    REQUIRE(kept);
    killed.signal(SIGKILL);
    killed.wait();
    const BpfObjects still_there(network.vm);
    for (const bool replace : {false, true}) {
        CAPTURE(replace);
        Server server(network.vm, replace ? Command{"--ports", "7", "--replace"} : Command{"--ports", "7"});
        CHECK(server.output().find("replaces") == std::string::npos);
        CHECK(echoes(network.host, Network::vm_ip4, 7));
        CHECK(echoes(network.host, Network::vm_ip6, 7));
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
    }
    kept = Fd();
    CHECK(nothing_left(network.vm));
}

TEST_CASE("restart: stopped by SIGTERM under load it ends in time, and cuts nobody off") {
    const Network network;
    Load load(network);
    for (int i = 0; i < 20; ++i) {
        CAPTURE(i);
        Server server(network.vm, {"--ports", "7", "--threads", "2"});
        const int served = load.served();
        REQUIRE(eventually([&] { return load.served() > served + 100; }));
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
        CHECK(server.output().ends_with("\nstopped\n"));
    }
    load.finish();
    MESSAGE("connections served: ", load.served(), ", cut off: ", load.broken());
    // The last packet of a handshake may be under way: then the client has a connection, and the server not yet.
    CHECK(load.broken() <= 2);
    CHECK(load.wrong() == 0);
}

}  // namespace echo_server
