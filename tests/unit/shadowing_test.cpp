// SPDX-License-Identifier: BSD-2-Clause
#include "shadowing.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "endpoint.h"

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
    return !shadowed({socket}, ports, addresses, 2).empty();
}

}  // namespace

TEST_CASE("shadowing: without prefixes any address counts, and only listed ports") {
    for (const std::string address : {"0.0.0.0", "127.0.0.1", "[::]", "[2001:db8::1]"}) {
        CAPTURE(address);
        CHECK(is_shadowed(socket_on(address + ":22"), {}));
        CHECK_FALSE(is_shadowed(socket_on(address + ":80"), {}));
    }
}

TEST_CASE("shadowing: our own listener does not count") {
    PortSet ports;
    ports.insert(22);
    CHECK(shadowed({socket_on("0.0.0.0:22")}, ports, {}, 1).empty());
}

TEST_CASE("shadowing: with prefixes, who listens on none of their addresses keeps the port") {
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
    for (const auto& one : cases) {
        CAPTURE(to_string(one.socket.local));
        CAPTURE(one.prefix);
        CHECK(is_shadowed(one.socket, {one.prefix}) == one.shadowed);
        CHECK(is_shadowed(one.socket, {one.prefix, one.prefix}) == one.shadowed);
    }
}
