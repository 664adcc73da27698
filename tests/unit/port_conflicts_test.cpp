// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <chrono>
#include <ctime>
#include <list>
#include <string>
#include <vector>

#include "base/os.h"
#include "net/address.h"

namespace echo_server {

namespace {

ListeningSocket socket_on(const std::string& endpoint, bool both_families = false) {
    ListeningSocket socket;
    socket.local = parse_endpoint(endpoint);
    socket.both_families = both_families;
    socket.cookie = 1;
    return socket;
}

bool is_shadowed(const ListeningSocket& socket, const std::vector<std::string>& prefixes) {
    PortSet ports;
    ports.insert(20, 30);
    std::vector<AddressPrefix> addresses;
    for (const auto& prefix : prefixes) addresses.push_back(parse_address_prefix(prefix));
    return !shadowed({socket}, ports, addresses).empty();
}

// Ports without a known process.
std::vector<ListeningSocket> sockets_on(const std::string& list) {
    PortList ports;
    ports.add(list);
    std::vector<ListeningSocket> sockets;
    for (const auto port : ports.ports().to_vector()) sockets.push_back(socket_on("0.0.0.0:" + std::to_string(port)));
    return sockets;
}

std::string every_second(int first, int last) {
    std::string list;
    for (int port = first; port <= last; port += 2) list += std::to_string(port) + ",";
    return list.substr(0, list.size() - 1);
}

std::chrono::nanoseconds cpu_of_refusal(const std::vector<ListeningSocket>& sockets) {
    const auto now = [] {
        timespec used{};
        REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
        return std::chrono::seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
    };
    const auto start = now();
    CHECK_FALSE(explain_conflicts(sockets, false).empty());
    return now() - start;
}

}  // namespace

TEST_CASE("port conflicts: a refusal of thousands of listeners shows ranges, and a few of them") {
    CHECK(explain_conflicts(sockets_on("80-10079"), false) ==
          "ports 80-10079 are already served by other sockets: leave them out, or pass --shadow-listeners to take "
          "their new connections ('sudo ss -tlnp' shows who listens)");
    CHECK(explain_conflicts(sockets_on(every_second(1000, 20998) + ",22-23"), false) ==
          "ports 22-23,1000,1002,1004,1006,1008,1010,1012,1014,1016,1018,1020,1022,1024,1026,1028 and 9985 more are "
          "already served by other sockets: leave them out, or pass --shadow-listeners to take their new connections "
          "('sudo ss -tlnp' shows who listens)");
    CHECK(explain_conflicts(sockets_on(every_second(1000, 20998)), true) ==
          "ports 1000,1002,1004,1006,1008,1010,1012,1014,1016,1018,1020,1022,1024,1026,1028,1030 and 9984 more are "
          "already served by other sockets: --shadow-listeners takes their new connections ('sudo ss -tlnp' shows who "
          "listens)");
}

TEST_CASE("port conflicts: one pass over all descriptors finds the owners of all sockets") {
    std::list<Fd> descriptors;
    for (int i = 0; i < 500; ++i) REQUIRE(descriptors.emplace_back(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
    auto sockets = sockets_on("1-20000");
    for (auto& socket : sockets) socket.inode = 4'000'000'000 + socket.local.port();
    struct stat status{};
    REQUIRE(::fstat(descriptors.back().get(), &status) == 0);
    sockets.front().inode = static_cast<std::uint32_t>(status.st_ino);
    const auto of_one = cpu_of_refusal({sockets.front()});
    const auto of_all = cpu_of_refusal(sockets);
    MESSAGE("one socket: ", of_one.count() / 1000, " us, 20,000: ", of_all.count() / 1000, " us of CPU time");
    CHECK(of_all < 50 * of_one);  // a loop over all ports needs hundreds of times as much
    CHECK(explain_conflicts(sockets, false).starts_with("ports 1 (unit-tests), 2-20000 are "));
}

TEST_CASE("port conflicts: without prefixes any address counts, and only listed ports") {
    for (const std::string address : {"0.0.0.0", "127.0.0.1", "[::]", "[2001:db8::1]"}) {
        CAPTURE(address);
        CHECK(is_shadowed(socket_on(address + ":22"), {}));
        CHECK_FALSE(is_shadowed(socket_on(address + ":80"), {}));
    }
}

TEST_CASE("port conflicts: with prefixes, a listener on none of their addresses keeps its port") {
    struct Case {
        ListeningSocket socket;
        std::string prefix;
        bool shadowed;
    };
    const std::vector<Case> cases = {
        {socket_on("0.0.0.0:22"), "192.0.2.0/24", true},
        {socket_on("0.0.0.0:22"), "2001:db8::/64", false},
        {socket_on("[::]:22", true), "192.0.2.0/24", true},
        {socket_on("[::]:22", false), "192.0.2.0/24", false},
        {socket_on("[::]:22", false), "2001:db8::/64", true},
        {socket_on("192.0.2.1:22"), "192.0.2.0/24", true},
        {socket_on("127.0.0.1:22"), "192.0.2.0/24", false},
        {socket_on("[::ffff:0.0.0.0]:22", true), "192.0.2.0/24", true},
        {socket_on("[::ffff:0.0.0.0]:22", true), "2001:db8::/64", false},
        {socket_on("[::ffff:192.0.2.1]:22"), "192.0.2.0/24", true},
        {socket_on("[2001:db8::1]:22"), "2001:db8::/64", true},
        {socket_on("[2001:db8:1::1]:22"), "2001:db8::/64", false},
    };
    for (const auto& row : cases) {
        CAPTURE(to_string(row.socket.local));
        CAPTURE(row.prefix);
        CHECK(is_shadowed(row.socket, {row.prefix}) == row.shadowed);
        CHECK(is_shadowed(row.socket, {row.prefix, row.prefix}) == row.shadowed);
    }
}

}  // namespace echo_server
