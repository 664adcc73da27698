// SPDX-License-Identifier: BSD-2-Clause
// --address: the server answers only at some destination addresses.
#include <doctest/doctest.h>

#include <string>

#include "support/client.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("address: ports answer at addresses of the prefixes, and are closed elsewhere") {
    const Netns netns;
    run_ok(netns, {"ip", "route", "add", "local", "192.0.2.0/24", "dev", "lo"});
    run_ok(netns, {"ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo"});
    run_ok(netns, {"ip", "-6", "route", "add", "local", "2001:db8::/48", "dev", "lo"});
    Server server(
        netns, {"--ports", "1-65535", "--allow-ephemeral", "--address", "192.0.2.0/24", "--address", "2001:db8::/64"});
    CHECK(server.output().find("\n  addresses  192.0.2.0/24, 2001:db8::/64\n") != std::string::npos);
    for (const std::string address : {"192.0.2.0", "192.0.2.77", "192.0.2.255", "2001:db8::", "2001:db8::ffff:1"})
        for (const std::uint16_t port : std::initializer_list<std::uint16_t>{1, 777, 7777, 65535}) {
            CAPTURE(address);
            CAPTURE(port);
            CHECK(echoes(netns, address, port));
        }
    for (const std::string address : {"127.0.0.1", "198.51.100.1", "::1", "2001:db8:0:1::"}) {
        CAPTURE(address);
        CHECK(try_connect(netns, address, 777) == ECONNREFUSED);
    }
}

TEST_CASE("address: the length of a prefix does not matter, and a family without a prefix stays closed") {
    const Netns netns;
    const Server server(
        netns, {"--ports", "7", "--address", "127.0.0.0/8", "--address", "127.0.0.7", "--address", "0.0.0.0/0"});
    CHECK(echoes(netns, "127.0.0.7", 7));
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(try_connect(netns, "::1", 7) == ECONNREFUSED);
}

TEST_CASE("address: a start and --check report a prefix without a local address") {
    const Network network;
    const auto warnings = [&](const std::string& prefix) {
        const auto command = echo_server({"--ports", "7", "--address", prefix, "--address", "127.0.0.1"});
        auto with_check = command;
        with_check.emplace_back("--check");
        const auto checked = run(network.vm, with_check);
        CHECK(checked.code == 0);
        Process server(network.vm, command);
        server.wait_for("  stop ");
        const auto number =
            count(server.output(), "no local address is in " + prefix + ": no client can connect there");
        CHECK(count(checked.output, "no local address is in " + prefix + ": ") == number);
        CHECK(count(server.output(), "no local address is in ") == number);
        return number;
    };
    for (const std::string prefix : {"192.0.2.0/24", Network::vm_ip4, "192.0.0.0/8", "0.0.0.0/0", "127.0.0.0/24", "::1",
                                     Network::vm_ip6, "2001:db8::/32", "::/0"}) {
        CAPTURE(prefix);
        CHECK(warnings(prefix) == 0);
    }
    // No address; the subnet's broadcast, the neighbour's address; multicast.
    for (const std::string prefix :
         {"198.51.100.0/24", "192.0.2.255", Network::host_ip4, "2001:db8:1::/48", "224.0.0.1", "ff02::1"}) {
        CAPTURE(prefix);
        CHECK(warnings(prefix) == 1);
    }
    run_ok(network.vm, {"ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo"});
    run_ok(network.vm, {"ip", "route", "add", "local", "2001:db8:1::/48", "dev", "lo"});
    CHECK(warnings("198.51.100.0/24") == 0);
    CHECK(warnings("2001:db8:1:2::3") == 0);
}

}  // namespace echo_server
