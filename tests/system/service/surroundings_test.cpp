// SPDX-License-Identifier: BSD-2-Clause
// Hosts that lack something, or have it in another form.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/skip.h"

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

TEST_CASE("surroundings: without a BPF file system it serves, reloads and shows its status") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()}, [] {
        if (!leave_mount_namespace() || ::mount("none", "/sys", "tmpfs", 0, nullptr) != 0) std::abort();
    });
    file.write("7,77\n");
    CHECK(server.reload() == fmt::format("reloaded {}: added 77; removed none; 2 ports open", file.path()));
    CHECK(echoes(netns, "::1", 77));
    CHECK(status_shows(netns, "  2 open: 7,77\n"));
}

TEST_CASE("surroundings: with IPv6 disabled it serves IPv4, and IPv6 as soon as IPv6 is enabled") {
    const Network network;
    set_sysctl(network.vm, "net/ipv6/conf/all/disable_ipv6", "1");
    const Server server(network.vm, {"--ports", "7"});
    CHECK(echoes(network.host, Network::vm_ip4, 7));
    set_sysctl(network.vm, "net/ipv6/conf/all/disable_ipv6", "0");
    run_ok(network.vm, {"ip", "address", "add", std::string(Network::vm_ip6) + "/64", "dev", "to-host", "nodad"});
    CHECK(echoes(network.host, Network::vm_ip6, 7));
}

TEST_CASE("surroundings: a wall clock that jumps ends no connection early, and none late") {
    const Netns netns;
    // Each read of the wall clock gives another year. (guest_test.cpp changes the kernel's own clock.)
    Server server(netns, {"--ports", "7", "--idle-timeout", "2"}, [] { jump_wall_clock(); });
    const auto start = steady_clock::now();
    Client client = connected(netns, 7);
    CHECK(client.at_end());
    CHECK(steady_clock::now() - start >= 2s);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
}

}  // namespace echo_server
