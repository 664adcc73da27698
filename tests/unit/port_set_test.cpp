// SPDX-License-Identifier: BSD-2-Clause
#include "net/port_set.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace echo_server {

namespace {

std::string parsed(std::string_view text) {
    PortList list;
    list.add(text);
    return list.ports().to_string();
}

std::string refusal(std::string_view text) {
    try {
        return "taken as " + parsed(text);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

bool contains(const std::string& text, const std::string& piece) { return text.find(piece) != std::string::npos; }

}  // namespace

TEST_CASE("port list: what is allowed") {
    struct Case {
        std::string text;
        std::string ports;
    };
    const std::vector<Case> cases = {
        {"7", "7"},
        {"7,77,777", "7,77,777"},
        {"1,65535", "1,65535"},
        {"777,7,77", "7,77,777"},
        {"7,7,7-7", "7"},
        {"1000-2000", "1000-2000"},
        {"1-3,4,5-6", "1-6"},
        {"5-9,1-6", "1-9"},
        {"1-65535", "1-65535"},
        {"1-1024,!22", "1-21,23-1024"},
        {"!22,1-1024", "1-21,23-1024"},
        {"1-100,!10-20,!50", "1-9,21-49,51-100"},
        {"22,!22", "none"},
        {"!22", "none"},
        {" 7 ,\t77 , 1 - 3 , ! 2 \r", "1,3,7,77"},
        {"007", "7"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.text);
        CHECK(parsed(row.text) == row.ports);
    }
}

TEST_CASE("port list: what is refused, with the wrong piece quoted") {
    struct Case {
        std::string text;
        std::string quoted;
    };
    const std::vector<Case> cases = {
        {"0", "'0'"},
        {"65536", "'65536'"},
        {"99999999999999999999", "'99999999999999999999'"},
        {"-7", "'-7'"},
        {"+7", "'+7'"},
        {"7-", "'7-'"},
        {"-", "'-'"},
        {"0-10", "'0-10'"},
        {"1-65536", "'1-65536'"},
        {"1-2-3", "'1-2-3'"},
        {"http", "'http'"},
        {"7 77", "'7 77'"},
        {"7;77", "'7;77'"},
        {"0x7", "'0x7'"},
        {"7.5", "'7.5'"},
        {"!", "'!'"},
        {"!!22", "'!!22'"},
        {"!0", "'!0'"},
        {"1-!22", "'1-!22'"},
        {"7,77, http ,777", "'http'"},
        {"7\n77", R"('7\x0a77')"},
        {"\x7f"
         "ELF\x02",
         "'\\x7fELF\\x02'"},
        {"aaaaaaaaaabbbbbbbbbbccccccccccdddddd", "'aaaaaaaaaabbbbbbbbbbccccccccccdd...'"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.text);
        CHECK(contains(refusal(row.text), row.quoted + " is not allowed here"));
        CHECK(contains(refusal(row.text), "from 1 to 65535"));
    }
    CHECK(contains(refusal(std::string_view("7\0", 2)), "'7\\x00'"));
    for (const std::string text : {"7,,77", ",7", "7,", ","})
        CHECK(contains(refusal(text), "'" + text + "' has two commas in a row, or a comma at an end: write ports (7)"));
    for (const auto* text : {"", " "}) CHECK(contains(refusal(text), "the port list is empty: write ports (7)"));
}

TEST_CASE("port list: an error names characters that are not ASCII, and quotes") {
    CHECK(refusal("7\u20138") ==
          R"('7\xe2\x80\x938' is not allowed here: it has a character that is not ASCII: write '-' for a dash)");
    for (const std::string_view piece : {"!7\u20108", "7\u22128", "\ufeff7"})
        CHECK(contains(refusal(piece), "it has a character that is not ASCII"));
    for (const std::string_view piece : {"'7", "77'", "\"7", "7\"", "'"})
        CHECK(contains(refusal(piece), "no shell has removed the quotes"));
}

TEST_CASE("port list: a range that runs backwards") {
    CHECK(refusal("7,2000-1000") == "'2000-1000' runs backwards: write 1000-2000");
    CHECK(refusal("!9-7") == "'!9-7' runs backwards: write 7-9");
}

TEST_CASE("port list: an exclusion wins in whatever order lists are merged") {
    PortList some;
    some.add("1-10");
    PortList others;
    others.add("!5,20");
    PortList merged = some;
    merged.add(others);
    CHECK(merged.ports().to_string() == "1-4,6-10,20");
    others.add(some);
    CHECK(others.ports() == merged.ports());
}

TEST_CASE("port list: a piece with a dash is a range, also of one port") {
    PortList list;
    list.add("7,10-12,20-20, 1 - 3 ,11,!10,!77,77");
    CHECK(list.named().to_string() == "7,11");
    std::string ranges;
    for (const auto& range : list.ranges()) ranges += to_string(range) + " ";
    CHECK(ranges == "10-12 20 1-3 ");
    CHECK(list.excluded().to_string() == "10,77");
    CHECK(list.ports().to_string() == "1-3,7,11-12,20");
}

TEST_CASE("port list: an exclusion alone is not empty, but opens nothing") {
    PortList list;
    CHECK(list.empty());
    list.add("!22");
    CHECK_FALSE(list.empty());
    CHECK(list.ports().empty());
}

TEST_CASE("port set: holds every possible port, and 0") {
    PortSet set;
    CHECK(set.empty());
    set.insert(0, 65535);
    CHECK(set.size() == 65536);
    CHECK(set.to_string() == "0-65535");
    CHECK(set.to_vector().front() == 0);
    CHECK(set.to_vector().back() == 65535);
}

TEST_CASE("port set: a range is the same as its ports one by one, across words of 64 bits") {
    const std::vector<std::uint16_t> edges = {0,   1,   62,  63,    64,    65,    126,  127,
                                              128, 191, 192, 65471, 65472, 65534, 65535};
    for (const auto first : edges)
        for (const auto last : edges) {
            CAPTURE(first);
            CAPTURE(last);
            PortSet at_once;
            at_once.insert(first, last);
            PortSet one_by_one;
            std::vector<std::uint16_t> ports;
            for (std::uint32_t port = first; port <= last; ++port) {
                ports.push_back(static_cast<std::uint16_t>(port));
                one_by_one.insert(ports.back());
            }
            CHECK(at_once == one_by_one);
            CHECK(at_once.size() == ports.size());
            CHECK(at_once.empty() == ports.empty());
            CHECK(at_once.to_vector() == ports);
            if (!ports.empty()) CHECK(at_once.to_string() == to_string({first, last}));
            PortSet others;
            others.insert(0, 65535);
            others = others - at_once;
            CHECK(others.contains(first) == (first > last));
            CHECK(others.size() == 65536 - ports.size());
            others = others | at_once;
            CHECK(others.to_string() == "0-65535");
        }
}

TEST_CASE("port set: difference") {
    PortSet a;
    a.insert(1, 10);
    PortSet b;
    b.insert(5, 20);
    CHECK((a - b).to_string() == "1-4");
    CHECK((b - a).to_string() == "11-20");
    CHECK((a - a).empty());
}

TEST_CASE("port set: a long list is cut short and says by how much") {
    PortSet set;
    for (std::uint16_t port = 1; port < 100; port = static_cast<std::uint16_t>(port + 2)) set.insert(port);
    CHECK(set.to_string(3) == "1,3,5 and 47 more");
    CHECK(set.to_string(50) == set.to_string());
}

}  // namespace echo_server
