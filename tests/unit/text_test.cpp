// SPDX-License-Identifier: BSD-2-Clause
#include "base/text.h"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <string_view>

namespace echo_server {

using namespace std::string_view_literals;

TEST_CASE("printable text: characters that control a terminal or fake a line are escaped, and ASCII stays") {
    for (const auto text : {""sv, "/etc/echo server~"sv, R"(\x0a)"sv}) CHECK(printable(text) == text);
    CHECK(printable("a\nb\t\x1b[2J\x7f\0c"sv) == R"(a\x0ab\x09\x1b[2J\x7f\x00c)");
    CHECK(printable("\u00e4\x9b\xff") == R"(\xc3\xa4\x9b\xff)");  // 9b begins a sequence in Latin-1
}

TEST_CASE("printable text: a copy that does not fit ends with a whole character, and returns the rest") {
    std::array<char, 5> room{};
    const auto copied = [&](std::string_view text) {
        const auto size = copy_printable(text, room);
        return std::string(room.data(), size) + "|" + std::string(text);
    };
    CHECK(copied("12345") == "12345|");
    CHECK(copied("123456") == "12345|6");
    CHECK(copied("12\n4") == "12|\n4");
    CHECK(copied("1\n4") == "1\\x0a|4");
}

}  // namespace echo_server
