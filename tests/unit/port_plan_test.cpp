// SPDX-License-Identifier: BSD-2-Clause
// The rule: a port that the list names must be free, and a range takes what is free.
#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "net/address.h"
#include "service/ports.h"

namespace echo_server {

namespace {

const std::string usual = "32768\t60999";

// What the host is like, and what the user gives.
struct Given {
    std::string list;
    std::vector<std::string> listeners = {};
    std::string address = {};
    std::string flag = {};
    std::string range = usual;
    std::string reserved = {};
};

PortList list_of(const std::string& text) {
    PortList list;
    list.add(text);
    return list;
}

PortPlan plan_of(const Given& given, const PortSet& open = {}, const PortSet& taken = {}) {
    Options options;
    options.shadow_listeners = given.flag == "--shadow-listeners";
    options.allow_ephemeral = given.flag == "--allow-ephemeral";
    if (!given.address.empty()) options.addresses.push_back(parse_address_prefix(given.address));
    std::vector<ListeningSocket> sockets(given.listeners.size());
    for (std::size_t i = 0; i < sockets.size(); ++i) sockets[i].local = parse_endpoint(given.listeners[i]);
    return make_plan(list_of(given.list), options, parse_ephemeral_ports(given.range, given.reserved), sockets, open,
                     taken);
}

std::string refusal_of(const Given& given, const PortSet& open = {}, const PortSet& taken = {}) {
    try {
        return "opens " + plan_of(given, open, taken).open().to_string();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

// "22 TAKEN, 32768-60999 HOST"
std::string left_out(const PortPlan& plan) {
    auto text = plan.left_out();
    const auto replace = [&](const std::string& from, const std::string& to) {
        if (const auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
    };
    replace("; left out: ", "");
    replace("(another program listens)", "TAKEN");
    replace("(the host's own ports)", "HOST");
    return text;
}

}  // namespace

TEST_CASE("port plan: a range takes what is free, and leaves the rest out") {
    struct Case {
        Given given;
        std::string open;
        std::string left_out;
    };
    const std::vector<Case> cases = {
        {{"7,77,777"}, "7,77,777", ""},
        {{"1-1000,!22,!900-999"}, "1-21,23-899,1000", ""},
        // The host's own ports: a range that reaches beyond them leaves them out. A range inside them opens, as a
        // single port does.
        {{"1-65535"}, "1-32767,61000-65535", "32768-60999 HOST"},
        {{"1-65535,!22"}, "1-21,23-32767,61000-65535", "32768-60999 HOST"},
        {{"1-40000,40001-65535"}, "1-32767,61000-65535", "32768-60999 HOST"},
        {{"1-65535,40000"}, "1-32767,40000,61000-65535", "32768-39999,40001-60999 HOST"},
        {{"32767-61000,!40000"}, "32767,61000", "32768-39999,40001-60999 HOST"},
        {{"50000-50100"}, "50000-50100", ""},
        {{"50000-50000"}, "50000", ""},
        {{"32768-50000"}, "32768-50000", ""},
        {{"1-65535,50000-50100"}, "1-32767,50000-50100,61000-65535", "32768-49999,50101-60999 HOST"},
        {{"1-65535,50000-50100,!50050"}, "1-32767,50000-50049,50051-50100,61000-65535", "32768-49999,50101-60999 HOST"},
        {{"60000-61000"}, "61000", "60000-60999 HOST"},
        // Other settings: ports that are reserved are not the host's.
        {{.list = "1-65535", .range = "40000\t40031"}, "1-39999,40032-65535", "40000-40031 HOST"},
        {{.list = "1-65535", .range = "1024\t65535"}, "1-1023", "1024-65535 HOST"},
        {{.list = "1024-2000", .range = "1024\t65535"}, "1024-2000", ""},
        {{.list = "1-65535", .reserved = "8080,40000-40010"},
         "1-32767,40000-40010,61000-65535",
         "32768-39999,40011-60999 HOST"},
        {{.list = "1-65535", .reserved = "1-65535"}, "1-65535", ""},
        // Listeners.
        {{"1-100", {"0.0.0.0:22"}}, "1-21,23-100", "22 TAKEN"},
        {{"1-100,!22", {"0.0.0.0:22"}}, "1-21,23-100", ""},
        {{"22-22,80", {"[::]:22"}}, "80", "22 TAKEN"},
        {{"1-100", {"0.0.0.0:22", "[::]:22", "127.0.0.1:80", "[::1]:81"}}, "1-21,23-79,82-100", "22,80-81 TAKEN"},
        {{"7,1-100", {"0.0.0.0:22", "0.0.0.0:700"}}, "1-21,23-100", "22 TAKEN"},
        {{"50000-50100", {"0.0.0.0:50001"}}, "50000,50002-50100", "50001 TAKEN"},
        {{"1-65535", {"0.0.0.0:22", "0.0.0.0:40000"}}, "1-21,23-32767,61000-65535", "22 TAKEN, 32768-60999 HOST"},
        // --address: a listener elsewhere keeps its port anyway.
        {{"1-100", {"192.0.2.7:22", "127.0.0.1:80"}, "192.0.2.0/24"}, "1-21,23-100", "22 TAKEN"},
        {{"22", {"127.0.0.1:22"}, "192.0.2.0/24"}, "22", ""},
        {{"1-100", {"0.0.0.0:22"}, "192.0.2.0/24"}, "1-21,23-100", "22 TAKEN"},
        // The flags take all.
        {{"1-65535", {"0.0.0.0:22"}, "", "--allow-ephemeral"}, "1-21,23-65535", "22 TAKEN"},
        {{"1-65535", {"0.0.0.0:40000"}, "", "--allow-ephemeral"}, "1-39999,40001-65535", "40000 TAKEN"},
        {{"1-65535", {"0.0.0.0:22"}, "", "--shadow-listeners"}, "1-32767,61000-65535", "32768-60999 HOST"},
        {{"22", {"0.0.0.0:22"}, "", "--shadow-listeners"}, "22", ""},
    };
    for (const auto& row : cases) {
        CAPTURE(row.given.list);
        CAPTURE(row.given.range);
        CAPTURE(row.given.flag);
        CAPTURE(row.given.address);
        const auto plan = plan_of(row.given);
        CHECK(plan.open().to_string() == row.open);
        CHECK(left_out(plan) == row.left_out);
    }
}

TEST_CASE("port plan: a port that is named must be free, and something must be left of a list") {
    const std::string served =
        " already served by another socket: leave it out, or pass --shadow-listeners to take its new connections "
        "('sudo ss -tlnp' shows who listens)";
    CHECK(refusal_of({"22", {"0.0.0.0:22"}}) == "port 22 is" + served);
    CHECK(refusal_of({"1-100,22", {"0.0.0.0:22", "0.0.0.0:23"}}) == "port 22 is" + served);
    CHECK(refusal_of({"22", {"0.0.0.0:22"}, "192.0.2.0/24"}) == "port 22 is" + served);
    CHECK(refusal_of({"22", {"0.0.0.0:22"}, "", "--allow-ephemeral"}) == "port 22 is" + served);
    const std::string advice = ": list other ports, or see --shadow-listeners and --allow-ephemeral";
    CHECK(refusal_of({"22-23", {"0.0.0.0:22", "0.0.0.0:23"}}) ==
          "the port list leaves no port to open; left out: 22-23 (another program listens)" + advice);
    CHECK(refusal_of({"32000-61000,!32000-32767,!61000"}) ==
          "the port list leaves no port to open; left out: 32768-60999 (the host's own ports)" + advice);
    for (const std::string list : {"7,!7", "!7,1-9,!1-10", "!22"})
        CHECK(refusal_of({list}) ==
              "the port list leaves no port to open: its exclusions (!22) remove all ports; exclude fewer, or list "
              "others");
}

TEST_CASE("port plan: enough of the host's range stays closed, however the ports are listed") {
    struct Case {
        Given given;
        std::size_t missing;  // 0: it opens
    };
    std::string lines = "7";
    for (int port = 33000; port < 61000; ++port) lines += "," + std::to_string(port);
    const std::vector<Case> cases = {
        {{"1-65535"}, 0},
        {{"32768-59975"}, 0},
        {{"32768-59976"}, 1},
        {{"32768-60999"}, 1024},
        {{"32768-60999,!40000-41023"}, 0},
        {{"32768-60999,!40000-41022"}, 1},
        {{"1-65535,32768-60000"}, 25},
        {{lines}, 792},
        {{lines + ",1-65535"}, 792},
        {{"40000-60999,32768-59999,!100-200"}, 1024},
        // A listener's port counts as open, as it would be once its program has ended.
        {{"32768-59976", {"0.0.0.0:40000"}}, 1},
        // connect() never uses reserved ports, closed or open.
        {{.list = "32768-59976", .reserved = "60000-60099"}, 101},
        {{.list = "32768-59976,!60000-60099", .reserved = "60000-60099"}, 101},
        {{.list = "32768-59976", .reserved = "40000-40099"}, 1},
        {{.list = "32768-59876", .reserved = "60000-60099"}, 1},
        {{.list = "32768-59875", .reserved = "60000-60099"}, 0},
        // The host's range ends with the last port, or has all ports.
        {{.list = "64000-65535", .range = "64000\t65535"}, 1024},
        {{.list = "1-65535", .range = "1\t65535"}, 1024},
        {{.list = "1-64511", .range = "1\t65535"}, 0},
        // In a smaller range, half of the ports is enough.
        {{.list = "40000-40031", .range = "40000\t40031"}, 16},
        {{.list = "40000-40015", .range = "40000\t40031"}, 0},
        {{.list = "40000-40030", .range = "40000\t40030"}, 16},
        {{.list = "40000", .range = "40000\t40000"}, 1},
        {{.list = "1-40000", .range = "40000\t40000"}, 0},
        {{.list = "40000-40031", .range = "40000\t40031", .reserved = "40000-40029"}, 1},
        {{.list = "40000-40031", .range = "40000\t40031", .reserved = "1-65535"}, 0},  // it has no ports anyway
    };
    for (const auto& row : cases) {
        CAPTURE(row.given.list.substr(0, 100));
        CAPTURE(row.given.range);
        CAPTURE(row.given.reserved);
        auto given = row.given;
        const auto refusal = refusal_of(given);
        CHECK(refusal.starts_with("opens ") == (row.missing == 0));
        if (row.missing != 0)
            CHECK(refusal.find(": leave " + std::to_string(row.missing) + " more out") != std::string::npos);
        given.flag = "--allow-ephemeral";
        CHECK(refusal_of(given).starts_with("opens "));
    }
    CHECK(refusal_of({"32768-60000"}) ==
          "too few of ports 32768-60999 stay closed: the host's own connections need 1024 of them as local ports "
          "(net.ipv4.ip_local_port_range), and the list leaves 999: leave 25 more out, or pass --allow-ephemeral in a "
          "separate network namespace");
}

TEST_CASE("port plan: a reload knows which ports were open, and on which a program has listened a moment ago") {
    PortSet open;
    open.insert(22);
    CHECK(refusal_of({"22", {"0.0.0.0:22"}}, open) == "opens 22");
    CHECK(refusal_of({"20-22", {"0.0.0.0:22"}}, open) == "opens 20-21");
    PortSet taken;
    taken.insert(80);
    const auto plan = plan_of({"79-81,443"}, open, taken);
    CHECK(plan.open().to_string() == "79,81,443");
    CHECK(plan.taken.to_string() == "80");
    CHECK(refusal_of({"80"}, open, taken) == "opens 80");  // a port that is named is open when it is free
    CHECK(refusal_of({"443-444"}, open, taken) == "opens 443-444");
}

TEST_CASE("port plan: the sysctls are read as the kernel writes them") {
    const auto local = parse_ephemeral_ports("32768\t60999", "");
    CHECK(to_string(local.range) == "32768-60999");
    CHECK(local.usable.to_string() == "32768-60999");
    const auto reserved = parse_ephemeral_ports("100\t200", "8,99-101,150,199-300");
    CHECK(to_string(reserved.range) == "100-200");
    CHECK(reserved.usable.to_string() == "102-149,151-198");
    CHECK(parse_ephemeral_ports("1\t65535", "0,65535").usable.to_string() == "1-65534");
    CHECK(parse_ephemeral_ports("1\t65535", "1-65535").usable.empty());
    for (const std::string text : {"", "7-8", "1\t65536", "one\ttwo"}) {
        CAPTURE(text);
        CHECK(parse_ephemeral_ports(text, "").usable.to_string() == "32768-60999");
    }
}

}  // namespace echo_server
