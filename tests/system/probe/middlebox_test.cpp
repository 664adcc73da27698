// SPDX-License-Identifier: BSD-2-Clause
// What 'echo-server probe' says of a port, with and without the server's status, for each kind of middlebox.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "net/port_set.h"
#include "support/client.h"
#include "support/middlebox.h"
#include "support/server.h"

namespace echo_server {

namespace {

using nlohmann::json;

struct Middlebox {
    std::uint16_t port;
    std::string name;
    std::vector<std::pair<std::string, std::string>> rules;  ///< chain and rule
    std::string verdict;  ///< and the beginning of its detail, with the {router}'s address, and {all} bytes
    std::string reading;
    Command flags = {};               ///< of the probe
    Interceptor::Serve program = {};  ///< on the router
};

using Middleboxes = std::vector<Middlebox>;

constexpr auto through = "through";
constexpr auto lost_there = "data lost on the way to the server";
constexpr auto lost_back = "data lost on the way back";
constexpr auto cut_there = "cut on the way to the server";
constexpr auto cut_back = "cut on the way back";
constexpr auto something_else = "answered by something else on the way";
constexpr auto not_this_server = "but not by this server on this port";
constexpr auto silence = "silent, 0 of {all} bytes";

// IP and TCP take at most 100 bytes.
const std::string has_data = "meta length > 100 ";

Middleboxes packet_filters() {
    const std::string syn = "tcp flags & (syn | ack) == syn ";
    const std::string syn_ack = "tcp flags & (syn | ack) == (syn | ack) ";
    const std::string becomes_rst = "tcp flags set (rst | ack)";
    return {
        {1001, "nothing", {}, "echoed", through},
        {1002, "the SYN is dropped", {{"there", syn + "drop"}}, "filtered", "SYN lost on the way to the server"},
        {1003, "the SYN-ACK is dropped", {{"back", syn_ack + "drop"}}, "filtered", "answer lost on the way back"},
        {1004, "all after the SYN is dropped", {{"there", "tcp flags & syn == 0 drop"}}, silence, lost_there},
        {1005, "data is dropped there", {{"there", has_data + "drop"}}, silence, lost_there},
        {1006, "data is dropped back", {{"back", has_data + "drop"}}, silence, lost_back},
        {1007,
         "the SYN gets a RST",
         {{"there", syn + "reject with tcp reset"}},
         "refused",
         "rejected on the way to the server, by a RST"},
        {1008,
         "the SYN-ACK becomes a RST",
         {{"back", syn_ack + becomes_rst}},
         "refused",
         "rejected on the way back, by a RST"},
        {1009,
         "data there gets a RST",
         {{"there", has_data + "reject with tcp reset"}},
         "cut, reset after 0 of 4096 bytes",
         cut_there},
        {1010,
         "data back becomes a RST",
         {{"back", has_data + becomes_rst}},
         "cut, reset after 0 of 4096 bytes",
         cut_back},
        {1011, "data back gets a RST", {{"back", has_data + "reject with tcp reset"}}, silence, lost_back},
        {1012, "an MTU hole there", {{"there", "meta length > 1280 drop"}}, silence, lost_there},
        {1013, "an MTU hole back", {{"back", "meta length > 1280 drop"}}, silence, lost_back},
    };
}

Middleboxes icmp_senders(bool ip6) {
    using Types = std::vector<std::pair<std::string, std::string>>;
    const Types icmp{{"net-unreachable", "net unreachable"},
                     {"host-unreachable", "host unreachable"},
                     {"prot-unreachable", "protocol unreachable"},
                     {"port-unreachable", "port unreachable"},
                     {"net-prohibited", "net prohibited"},
                     {"host-prohibited", "host prohibited"},
                     {"admin-prohibited", "administratively prohibited"}};
    const Types icmpv6{{"no-route", "no route"},
                       {"admin-prohibited", "administratively prohibited"},
                       {"addr-unreachable", "address unreachable"},
                       {"port-unreachable", "port unreachable"},
                       {"policy-fail", "source refused"},
                       {"reject-route", "reject route"}};
    Middleboxes all;
    for (const auto& [type, name] : ip6 ? icmpv6 : icmp)
        all.push_back({static_cast<std::uint16_t>(1020 + all.size()),
                       name,
                       {{"there", fmt::format("reject with {} type {}", ip6 ? "icmpv6" : "icmp", type)}},
                       fmt::format("unreachable, ICMP {} from {{router}}", name),
                       "rejected on the way to the server, by ICMP"});
    all.push_back({1028,
                   "data gets an ICMP error",
                   {{"there", has_data + "reject with icmpx type admin-prohibited"}},
                   "cut, ICMP",
                   cut_there});
    return all;
}

Middleboxes filters_that_look() {
    // Behind the TCP option for timestamps, the only one of segments with data here.
    const std::string no_tls = has_data + "tcp doff 8 @th,256,16 != 0x1603 ";
    const std::string get = "tcp doff 8 @th,256,32 0x47455420 ";
    const Command hold{"--hold", "4"};
    const std::vector<std::pair<std::string, std::string>> forgets{
        {"there", "ct state new ct timeout set \"two_seconds\""},
        {"there", "ct state invalid drop"},
        {"back", "ct state invalid drop"}};
    return {
        {1031, "all but TLS is dropped", {{"there", no_tls + "drop"}}, silence, lost_there},
        {1032, "TLS there", {{"there", no_tls + "drop"}}, "echoed", through, {"--payload", "tls"}},
        {1033, "GET is dropped", {{"there", get + "drop"}}, "echoed", through},
        {1034, "GET there", {{"there", get + "drop"}}, silence, lost_there, {"--payload", "http"}},
        {1035, "a connection silent for two seconds is forgotten", forgets, "echoed", through},
        {1036, "silence there", forgets, "silent, 0 of 4096 bytes, once it was idle", lost_there, hold},
        {1037, "the same, and no connection is forgotten", {}, "echoed", through, hold},
        {1038,
         "a SYN proxy",
         {{"arriving", "tcp flags syn notrack"},
          {"there", "ct state invalid,untracked synproxy mss 1400 wscale 7 timestamp sack-perm"},
          {"there", "ct state invalid drop"}},
         "echoed",
         through},
        {1039, "the client's address is translated", {{"leaving", "masquerade"}}, "echoed", through},
        {1040, "the port is translated", {{"translation", "dnat to :3000"}}, "echoed", not_this_server},
    };
}

// The first bytes of the stream; the others are lost.
Change only_first(std::size_t size) {
    return
        [size](std::string& bytes, std::size_t at) { bytes.resize(std::min(bytes.size(), size - std::min(at, size))); };
}

void rewrite_byte_100(std::string& bytes, std::size_t at) {
    if (at <= 100 && 100 < at + bytes.size()) bytes[100 - at] = '!';
}

void to_upper_case(std::string& bytes, std::size_t /*at*/) {
    for (auto& byte : bytes) byte = static_cast<char>(std::toupper(static_cast<unsigned char>(byte)));
}

void begin_late(std::string& /*bytes*/, std::size_t at) {
    if (at == 0) std::this_thread::sleep_for(std::chrono::seconds(3));
}

Middleboxes programs() {
    const Command small{"--size", "64"};
    const Change pass;
    Middleboxes all{
        {1050, "a TCP proxy", {}, "echoed", through, {}, relay(pass, pass)},
        {1051,
         "an HTTP proxy",
         {},
         "altered, at byte 0: 'HTTP/1.1 400 Bad Request",
         something_else,
         {},
         answer("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")},
        {1052, "a proxy that says nothing", {}, silence, something_else, {}, say_nothing()},
        {1053, "an echo", {}, "echoed", not_this_server, {}, echo_there()},
        {1054,
         "a byte is rewritten there",
         {},
         "altered, at byte 100: '!",
         "altered on the way to the server or back",
         {},
         relay(rewrite_byte_100, pass)},
        {1055,
         "letters are upper-cased back",
         {},
         "altered, at byte 4: 'Y",
         "altered on the way to the server or back",
         {},
         relay(pass, to_upper_case)},
        {1056, "16 bytes there", {}, "silent, 16 of 64 bytes", lost_there, small, relay(only_first(16), pass)},
        {1057, "16 bytes back", {}, "silent, 16 of 64 bytes", lost_back, small, relay(pass, only_first(16))},
        {1058, "3 s late", {}, "echoed", through, {}, relay(pass, begin_late)},
    };
    const auto add_cut = [&](std::uint16_t port, End end, const std::string& how) {
        const auto verdict = fmt::format("cut, {} after 400 of 4096 bytes", how);
        all.push_back({port, how + " there", {}, verdict, cut_there, {}, relay_until(400, end, only_first(400), pass)});
        ++port;
        all.push_back({port, how + " back", {}, verdict, cut_back, {}, relay_until(4096, end, pass, only_first(400))});
    };
    add_cut(1060, End::reset, "reset");
    add_cut(1062, End::fin, "closed");
    for (auto& one : all) one.rules = {{"translation", "redirect"}};
    return all;
}

// The port list of the server. at_the_server() has those of 1001-40000 that it does not open.
constexpr auto ports_of_the_server = "1001-40000,!1070";
constexpr std::uint16_t other_program = 1071;

Middleboxes at_the_server() {
    return {
        {1070, "closed", {}, "refused", "not open at the server"},
        {other_program,
         "a port of another program",
         {},
         "altered, at byte 0: 'other'",
         "left out by the server: another program listens"},
        {40000, "a port of the host's own", {}, "refused", "left out by the server: the host's own ports"},
    };
}

// The command that probes `ports` of the server, and asks the server.
Command probe_through(const RoutedNetwork& network, bool ip6, const std::string& ports, const Command& flags) {
    const auto status = fmt::format("nsenter --net={} {} status --json", network.server.path(), echo_server({})[0]);
    auto command = echo_server({"probe", "--json", "--ports", ports, "--status-command", status});
    command.insert(command.end(), flags.begin(), flags.end());
    command.emplace_back(ip6 ? RoutedNetwork::server_ip6 : RoutedNetwork::server_ip4);
    return command;
}

json report_of(Process& process) {
    const int code = process.wait();
    const auto& output = process.output();
    CAPTURE(output);
    REQUIRE((code == 0 || code == 1));
    return json::parse(output);
}

// Fails the test unless the report has exactly one result of `port`.
json result_of(const json& report, std::uint16_t port) {
    json found;
    for (const auto& result : report["results"]) {
        PortList list;
        list.add(result["list"].get<std::string>());
        if (list.ports().contains(port)) found.push_back(result);
    }
    REQUIRE(found.size() == 1);
    return found[0];
}

void check_report(const json& report, const Middleboxes& middleboxes, bool ip6) {
    const auto* const router = ip6 ? RoutedNetwork::router_ip6 : RoutedNetwork::router_ip4;
    const auto all = report["payload_bytes"].get<int>();
    for (const auto& one : middleboxes) {
        CAPTURE(one.port);
        CAPTURE(one.name);
        const auto result = result_of(report, one.port);
        const std::string detail = result["detail"];
        const auto verdict = result["verdict"].get<std::string>() + (detail.empty() ? "" : ", ") + detail;
        const auto expected = fmt::format(fmt::runtime(one.verdict), fmt::arg("router", router), fmt::arg("all", all));
        CAPTURE(verdict);
        CHECK(verdict.substr(0, expected.size()) == expected);
        CHECK(result["reading"] == one.reading);
    }
}

void check_middleboxes(bool ip6) {
    const RoutedNetwork network;
    std::vector<PortRule> rules;
    std::list<Interceptor> interceptors;
    std::map<Command, Middleboxes> by_flags;
    for (const auto& some : {packet_filters(), icmp_senders(ip6), filters_that_look(), programs(), at_the_server()})
        for (const auto& one : some) {
            for (const auto& [chain, rule] : one.rules) rules.push_back({std::to_string(one.port), chain, rule});
            if (one.program) interceptors.emplace_back(network, one.port, one.program);
            by_flags[one.flags].push_back(one);
        }
    network.add_rules(rules);
    const NamedServer other(network.server, NamedServer::Protocol::tcp, "::", other_program, "other");
    const Server server(network.server, {"--ports", ports_of_the_server});

    // Each has ports of its own, so all run at once.
    std::list<Process> probes;
    for (const auto& [flags, some] : by_flags) {
        std::vector<std::uint16_t> ports;
        for (const auto& one : some) ports.push_back(one.port);
        auto all_flags = flags;
        all_flags.insert(all_flags.end(), {"--retries", flags.empty() ? "1" : "0"});
        probes.emplace_back(network.client,
                            probe_through(network, ip6, fmt::format("{}", fmt::join(ports, ",")), all_flags));
    }
    auto process = probes.begin();
    for (const auto& [flags, some] : by_flags) check_report(report_of(*process++), some, ip6);
}

}  // namespace

TEST_CASE("probe: says what each middlebox does, on IPv4") { check_middleboxes(false); }

TEST_CASE("probe: says what each middlebox does, on IPv6") { check_middleboxes(true); }

TEST_CASE("probe: limits of the rate or number of connections cost tries, but no port") {
    const std::string rate = "ct state new limit rate over 100/second burst 20 packets drop";
    const std::string connections = "ct state new ct count over 10 drop";
    const std::string with_rst = "ct state new ct count over 10 reject with tcp reset";
    const std::map<std::string, std::string> ip4{
        {"2001-2300", rate}, {"2301-2350", connections}, {"2351-2400", with_rst}};
    const std::map<std::string, std::string> ip6{
        {"3001-3300", rate}, {"3301-3350", connections}, {"3351-3400", with_rst}};
    const RoutedNetwork network;
    std::vector<PortRule> rules;
    for (const auto& family : {ip4, ip6})
        for (const auto& [ports, rule] : family) rules.push_back({ports, "there", rule});
    network.add_rules(rules);
    const Server server(network.server, {"--ports", "2001-4000"});

    std::list<Process> probes;
    for (const auto& rule : rules)
        probes.emplace_back(network.client, probe_through(network, ip6.contains(rule.ports), rule.ports, {}));
    auto process = probes.begin();
    for (const auto& rule : rules) {
        const auto report = report_of(*process++);
        CAPTURE(rule.what);
        CAPTURE(report.dump());
        PortList first;
        PortList later;
        for (const auto& result : report["results"]) {
            CHECK(result["verdict"] == "echoed");
            CHECK(result["reading"] == "through");
            (result["try"] == 1 ? first : later).add(result["list"].get<std::string>());
        }
        CHECK((first.ports() | later.ports()).to_string() == rule.ports);
        CHECK(!first.empty());
        CHECK(!later.empty());
    }
}

}  // namespace echo_server
