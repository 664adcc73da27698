// SPDX-License-Identifier: BSD-2-Clause
#include "support/middlebox.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <limits>
#include <map>
#include <utility>

#include "net/address.h"
#include "net/sockets.h"
#include "support/process.h"
#include "support/server.h"

namespace echo_server {

RoutedNetwork::RoutedNetwork() {
    const auto lay = [this](const Netns& netns, const std::string& device, const std::string& prefix4,
                            const std::string& prefix6, const std::string& last) {
        run_ok(router, {"ip", "link", "add", "to-" + device, "type", "veth", "peer", "name", "to-router", "netns",
                        netns.path()});
        const auto configure = [&](const Netns& end, const std::string& name, const std::string& part) {
            run_ok(end, {"ip", "address", "add", prefix4 + part + "/24", "dev", name});
            // Without nodad nobody can use the address before duplicate address detection ends.
            run_ok(end, {"ip", "address", "add", prefix6 + part + "/64", "dev", name, "nodad"});
            run_ok(end, {"ip", "link", "set", name, "up"});
        };
        configure(router, "to-" + device, "254");
        configure(netns, "to-router", last);
        for (const auto& gateway : {prefix4 + "254", prefix6 + "254"})
            run_ok(netns, {"ip", "route", "add", "default", "via", gateway});
    };
    lay(client, "client", "192.0.2.", "2001:db8:1::", "1");
    lay(server, "server", "198.51.100.", "2001:db8:2::", "2");
    set_sysctl(router, "net/ipv4/ip_forward", "1");
    set_sysctl(router, "net/ipv6/conf/all/forwarding", "1");
    // The router must send every ICMP error, not one a second.
    set_sysctl(router, "net/ipv4/icmp_ratelimit", "0");
    set_sysctl(router, "net/ipv6/icmp/ratelimit", "0");
    // The router must not take up connections whose SYN it has not seen.
    set_sysctl(router, "net/netfilter/nf_conntrack_tcp_loose", "0");
    // The kernel notices a new cable after a while, and loses packets until then.
    for (const std::string address : {server_ip4, server_ip6})
        REQUIRE(eventually([&] { return try_connect(client, address, 1) == ECONNREFUSED; }));
}

void RoutedNetwork::add_rules(const std::vector<PortRule>& rules) const {
    std::map<std::string, std::string> chains{
        {"arriving", "type filter hook prerouting priority raw;"},
        {"translation", "type nat hook prerouting priority dstnat;"},
        {"there", "type filter hook forward priority filter;"},
        {"back", "type filter hook forward priority filter;"},
        {"leaving", "type nat hook postrouting priority srcnat;"},
    };
    for (const auto& [ports, chain, what] : rules)
        chains.at(chain) += fmt::format("\n tcp {} {} {}", chain == "back" ? "sport" : "dport", ports, what);
    std::string table = "ct timeout two_seconds { protocol tcp; policy = { established : 2 }; }\n";
    for (const auto& [name, body] : chains) table += fmt::format("chain {} {{ {}\n}}\n", name, body);
    run_ok(router, {"nft", "-f", TempFile("table inet middlebox {\n" + table + "}\n").path()});
}

namespace {

constexpr auto no_limit = std::numeric_limits<std::size_t>::max();

// One direction of a connection.
struct Way {
    int from;
    int to;
    const Change& change;
    std::size_t passed = 0;
    bool open = true;

    // Passes on the next bytes, or the end.
    void pass() {
        std::array<char, 65536> buffer;
        const auto count = ::recv(from, buffer.data(), buffer.size(), 0);
        if (count <= 0) {
            ::shutdown(to, SHUT_WR);
            open = false;
            return;
        }
        std::string bytes(buffer.data(), static_cast<std::size_t>(count));
        if (change) change(bytes, passed);
        passed += static_cast<std::size_t>(count);
        ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    }
};

// The client's address decides, because the listener serves both families.
std::string server_address_for(const Fd& client) {
    return local_endpoint(client.get()).address().to_v6().is_v4_mapped() ? RoutedNetwork::server_ip4
                                                                         : RoutedNetwork::server_ip6;
}

Fd listen_on(const Netns& router, std::uint16_t port) {
    const Netns::Entered entered(router);
    return open_listener(parse_endpoint(fmt::format("[::]:{}", port)));
}

}  // namespace

Interceptor::Interceptor(const RoutedNetwork& network, std::uint16_t port, Serve serve)
    : peer_(listen_on(network.router, port), [&network, port, serve = std::move(serve)](const Fd& client) {
          serve(client, [&] { return Client(network.router, server_address_for(client), port); });
      }) {}

Interceptor::Serve relay_until(std::size_t limit, End end, const Change& there, const Change& back) {
    return [=](const Fd& client, const std::function<Client()>& connect_on) {
        const auto server = connect_on();
        Way to_server{.from = client.get(), .to = server.fd(), .change = there};
        Way to_client{.from = server.fd(), .to = client.get(), .change = back};
        while (to_server.open || to_client.open) {
            std::array<pollfd, 2> ready{};
            ready[0] = {.fd = to_server.open ? to_server.from : -1, .events = POLLIN, .revents = 0};
            ready[1] = {.fd = to_client.open ? to_client.from : -1, .events = POLLIN, .revents = 0};
            if (::poll(ready.data(), ready.size(), -1) < 0) return;
            if (ready[0].revents != 0) to_server.pass();
            if (ready[1].revents != 0) to_client.pass();
            if (to_client.passed < limit) continue;
            if (end == End::reset) return;
            ::shutdown(client.get(), SHUT_WR);
            return wait_for_end(client);
        }
    };
}

Interceptor::Serve relay(const Change& there, const Change& back) {
    return relay_until(no_limit, End::fin, there, back);
}

Interceptor::Serve answer(const std::string& text) {
    return [text](const Fd& client, const std::function<Client()>&) {
        std::array<char, 4096> buffer;
        if (::recv(client.get(), buffer.data(), buffer.size(), 0) <= 0) return;
        ::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL);
        ::shutdown(client.get(), SHUT_WR);
        wait_for_end(client);
    };
}

Interceptor::Serve echo_there() {
    return [](const Fd& client, const std::function<Client()>&) {
        const Change none;
        for (Way way{.from = client.get(), .to = client.get(), .change = none}; way.open;) way.pass();
    };
}

Interceptor::Serve say_nothing() {
    return [](const Fd& client, const std::function<Client()>&) { wait_for_end(client); };
}

}  // namespace echo_server
