// SPDX-License-Identifier: BSD-2-Clause
#include "net/address.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace echo_server {

TEST_CASE("address prefix: is written as it was read") {
    for (const std::string text : {"192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/64", "192.0.2.7", "2001:db8::7",
                                   "10.0.0.0/7", "2001:db8:8000::/33"}) {
        CAPTURE(text);
        CHECK(to_string(parse_address_prefix(text)) == text);
    }
    CHECK(to_string(parse_address_prefix("192.0.2.7/32")) == "192.0.2.7");
    CHECK(to_string(parse_address_prefix("2001:DB8:0::/64")) == "2001:db8::/64");
}

TEST_CASE("address prefix: contains") {
    struct Case {
        std::string prefix;
        std::string address;
        bool contained;
    };
    const std::vector<Case> cases = {
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.128/25", "192.0.2.129", true},
        {"0.0.0.0/0", "255.1.2.3", true},
        {"0.0.0.0/0", "::", false},
        {"::/0", "0.0.0.0", false},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"2001:db8::7", "2001:db8::7", true},
        {"2001:db8::7", "2001:db8::8", false},
    };
    for (const auto& row : cases) {
        CAPTURE(row.prefix);
        CAPTURE(row.address);
        CHECK(parse_address_prefix(row.prefix).contains(asio::ip::make_address(row.address)) == row.contained);
    }
}

TEST_CASE("address prefix: anything else is refused, and the error says what to write") {
    const auto refusal = [](const std::string& text) -> std::string {
        try {
            return "taken as " + to_string(parse_address_prefix(text));
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    };
    for (const std::string text : {"", "/", "/24", "192.0.2.0/", "192.0.2.0/33", "192.0.2.0/-1", "192.0.2.0/24/24",
                                   "192.0.2", "2001:db8::/129", "localhost", "fe80::1%1", "192.0.2.0/ 24", "[::]/0"}) {
        CAPTURE(text);
        CHECK(refusal(text) ==
              "'" + text + "' is not an address prefix: write 192.0.2.0/24, 2001:db8::/64 or a lone address");
    }
    for (const std::string text : {"0.0.0.0", "0.0.0.0/32"})
        CHECK(refusal(text) ==
              "'" + text +
                  "' is not an address that a client can dial: write 0.0.0.0/0 for every IPv4 address, or leave "
                  "--address out");
    CHECK(refusal("::").find("write ::/0 for every IPv6 address") != std::string::npos);
    CHECK(refusal("192.0.2.7/24") == "'192.0.2.7/24' has host bits set: write 192.0.2.0/24");
    CHECK(refusal("::ffff:192.0.2.0/120") == "'::ffff:192.0.2.0/120' is an IPv4-mapped address: write it as IPv4");
}

TEST_CASE("endpoint: reads what it writes") {
    for (const std::string text : {"127.0.0.1:7777", "0.0.0.0:1", "192.0.2.1:65535", "[::]:7777", "[2001:db8::1]:0"}) {
        CAPTURE(text);
        CHECK(to_string(parse_endpoint(text)) == text);
    }
    CHECK(to_string(parse_endpoint("[::ffff:127.0.0.1]:7777")) == "127.0.0.1:7777");
}

TEST_CASE("endpoint: refuses anything else") {
    for (const std::string text : {"", ":", "7777", ":7777", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
                                   "127.0.0.1:-1", "127.0.0.1:7777x", "127.0.0:7777", "localhost:7777", "::1:7777",
                                   "[::1]", "[::1]:", "[127.0.0.1]:7777", "[::1:7777", "::1]:7777"}) {
        CAPTURE(text);
        CHECK_THROWS_AS(parse_endpoint(text), std::runtime_error);
    }
}

}  // namespace echo_server
