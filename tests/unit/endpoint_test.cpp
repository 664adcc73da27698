// SPDX-License-Identifier: BSD-2-Clause
#include "net/endpoint.h"

#include <doctest/doctest.h>

#include <stdexcept>

namespace echo_server {

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
