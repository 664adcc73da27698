// SPDX-License-Identifier: BSD-2-Clause
#include "base/text.h"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <string_view>

namespace echo_server {

using namespace std::string_view_literals;

TEST_CASE("visible text: text in UTF-8 stays, and what could steer a terminal or fake a line does not") {
    for (const auto text : {""sv, "/etc/echo server~"sv, "\u00a0\u00e4\u2013\U0001f389"sv, "\u07ff\u0800\uffff"sv})
        CHECK(visible(text) == text);
    CHECK(visible("a\nb\t\x1b[2J\x7f\0c"sv) == "a\\x0ab\\x09\\x1b[2J\\x7f\\x00c");
    CHECK(visible("\xc2\x80\xc2\x9b\xc2\x9f"sv) == "\\xc2\\x80\\xc2\\x9b\\xc2\\x9f");  // C1: 9b begins a sequence
    // Latin-1, half of a character, a surrogate, a newline in two bytes, and beyond the last character.
    for (const auto text :
         {"\xe4 "sv, "\xe2\x80"sv, "\xed\xa0\x80"sv, "\xc0\x8a"sv, "\xe0\x80\x8a"sv, "\xf4\x90\x80\x80"sv})
        CHECK(visible(text).starts_with("\\x"));
}

TEST_CASE("visible text: a copy that does not fit ends with a whole character, and says what is left") {
    std::array<char, 5> room{};
    const auto copied = [&](std::string_view text, std::string_view kept = {}) {
        const auto size = copy_visible(text, room, kept);
        return std::string(room.data(), size) + "|" + std::string(text);
    };
    CHECK(copied("12345") == "12345|");
    CHECK(copied("123456") == "12345|6");
    CHECK(copied("1234\u00e4") == "1234|\u00e4");
    CHECK(copied("12\n4") == "12|\n4");
    CHECK(copied("1\n4") == "1\\x0a|4");
    CHECK(copied("1\n\t4", "\n\t") == "1\n\t4|");
}

}  // namespace echo_server
