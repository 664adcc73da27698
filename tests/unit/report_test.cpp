// SPDX-License-Identifier: BSD-2-Clause
#include "probe/report.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace echo_server {

namespace {

/// The output of 'status --json' for one server, with `figures` in by_port.
std::string counted_by(const std::string& figures) {
    return R"({"instances": [{"ports": null, "left_out": null, "by_port": {)" + figures + "}}]}";
}

std::string refused_status(const std::string& output) {
    try {
        return "taken, with " + parse_status(output).open.to_string();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

std::vector<std::uint64_t> figures_of(const ServerSide& side, std::uint16_t port) {
    return {side.by_port.at(port).attempts, side.by_port.at(port).received};
}

/// A report on `results` by port, without figures of the server.
struct Probed {
    Probed(const std::string& ports, const std::vector<std::pair<std::uint16_t, PortResult>>& of_ports) {
        options.host = "192.0.2.7";
        options.ports.add(ports);
        for (const auto& [port, result] : of_ports) results[port] = result;
    }

    [[nodiscard]] Report report() const {
        return {.options = options,
                .address = "192.0.2.7",
                .payload_size = 4096,
                .seconds = 1.25,
                .is_complete = complete,
                .ports = options.ports.ports(),
                .results = results,
                .server = server};
    }

    ProbeOptions options;
    Results results{65536};
    std::optional<ServerSide> server;
    bool complete = true;
};

PortResult result_of(Verdict verdict, std::string detail = {}, std::uint8_t tries = 1) {
    return {.verdict = verdict, .tries = tries, .sent = 4096, .detail = std::move(detail)};
}

}  // namespace

TEST_CASE("report: the servers of a status are added up") {
    const auto side = parse_status(R"({"instances": [
        {"ports": {"count": 4, "list": "7,9-11"},
         "left_out": {"taken": {"count": 1, "list": "22"}, "host": {"count": 2, "list": "40000-40001"}},
         "by_port": {"7": {"attempts": 1, "connections": 2, "echoed": 1, "received": 3, "sent": 4},
                     "65535": {"attempts": 18446744073709551615, "received": 0}},
         "more": [1, 2]},
        {"ports": null, "left_out": null, "by_port": null},
        {"ports": null, "left_out": null, "by_port": {"7": {"attempts": 10, "received": 30}}},
        {"ports": {"count": 2, "list": "0,22"},
         "left_out": {"taken": {"count": 0, "list": "none"}, "host": {"count": 1, "list": "7"}}, "by_port": {}}]})");
    CHECK(side.open.to_string() == "0,7,9-11,22");
    CHECK(side.taken.to_string() == "none");
    CHECK(side.hosts.to_string() == "40000-40001");
    REQUIRE(side.by_port.size() == 65536);
    CHECK(figures_of(side, 7) == std::vector<std::uint64_t>{11, 33});
    CHECK(figures_of(side, 65535).front() == 18446744073709551615U);
    CHECK(figures_of(side, 9) == std::vector<std::uint64_t>{0, 0});
}

TEST_CASE("report: a document that is not a status is refused, and the error says why") {
    const auto with_list = [](const std::string& ports) {
        return R"({"instances": [{"by_port": {}, "left_out": null, "ports": )" + ports + "}]}";
    };
    struct Case {
        std::string output;
        std::string says;
    };
    const std::vector<Case> cases = {
        {"", "status: parse error at line 1, column 1: "},  // the rest depends on the version of the library
        {"sudo: a \x1b[2J", "syntax error"},
        {counted_by("").substr(0, 30), "unexpected end of input"},
        {std::string(1000000, '['), "unexpected end of input"},
        {std::string(100000, '[') + std::string(100000, ']'), "cannot use at() with array"},
        {"7", "cannot use at() with number"},
        {"{}", "status: key 'instances' not found"},
        {R"({"instances": "none"})", "cannot use at() with string"},
        {R"({"instances": []})", "no server runs there"},
        {R"({"instances": [7]})", "cannot use at() with number"},
        {R"({"instances": [{"by_port": {}}]})", "key 'ports' not found"},
        {with_list("\"7\""), "cannot use at() with string"},
        {with_list(R"({"list": 7})"), "type must be string"},
        {counted_by(R"("65536": {})"), "'65536' is not a port"},
        {counted_by(R"("-1\u001b": {})"), R"('-1\x1b' is not a port)"},
        {counted_by(R"("7": 7)"), "cannot use at() with number"},
        {counted_by(R"("7": {"attempts": "x", "received": 1})"), "type must be number"},
        {counted_by(R"("7": {"attempts": 1, "connections": 1, "echoed": 1})"),
         "key 'received' not found"},  // an older server
    };
    for (const auto& row : cases) {
        CAPTURE(row.says);
        const auto refusal = refused_status(row.output);
        CAPTURE(refusal);
        CHECK(refusal.find(row.says) != std::string::npos);
        CHECK(refusal.find("; give the whole output of 'echo-server status --json', of this version") !=
              std::string::npos);
        CHECK(refusal.find('\x1b') == std::string::npos);
    }
}

TEST_CASE("report: the time for a status grows with its members, not with their square") {
    std::string members = R"({"instances": [{"ports": null, "left_out": null, "by_port": {})";
    for (int number = 0; number < 300000; ++number) members += ",\"" + std::to_string(number) + "\":0";
    CHECK(refused_status(members + "}]}") == "taken, with none");
}

TEST_CASE("report: a difference has the later ports, and all that a restarted server has counted") {
    ServerSide before;
    before.by_port[7] = {.attempts = 1, .received = 30};
    ServerSide after;
    after.by_port[7] = {.attempts = 11, .received = 330};
    after.by_port[9] = {.attempts = 5, .received = 5};
    after.open.insert(9);
    const auto grown = difference(before, after);
    CHECK(grown.open.to_string() == "9");
    CHECK(figures_of(grown, 7) == std::vector<std::uint64_t>{10, 300});
    CHECK(figures_of(grown, 9) == std::vector<std::uint64_t>{5, 5});
    CHECK(figures_of(difference(before, before), 7) == std::vector<std::uint64_t>{0, 0});
    const ServerSide long_run = after;
    const ServerSide restarted = before;
    CHECK(figures_of(difference(long_run, restarted), 7) == std::vector<std::uint64_t>{1, 30});
}

TEST_CASE("report: the figures of both sides together give one reading") {
    enum class Port { open, closed, taken, host };
    using enum Verdict;
    struct Case {
        Verdict verdict;
        std::uint64_t sent;  // by the client
        Port port;
        ServerFigures server;  // attempts, received
        std::string reading;
    };
    const ServerFigures nothing;
    const ServerFigures tried{3, 0};
    const ServerFigures part{3, 48};
    const ServerFigures all{3, 300};
    const std::vector<Case> cases = {
        {not_probed, 0, Port::open, nothing, ""},
        {echoed, 100, Port::open, {1, 100}, "through"},
        {echoed, 300, Port::open, {3, 100}, "through"},
        {echoed, 100, Port::closed, {1, 100}, "through"},  // closed since
        {echoed, 100, Port::open, nothing, "but not by this server on this port"},
        {echoed, 100, Port::open, tried, "but not by this server on this port"},
        {echoed, 100, Port::taken, nothing, "but not by this server on this port"},
        {echoed, 100, Port::closed, nothing, "but not by this server on this port"},

        {altered, 100, Port::taken, nothing, "left out by the server: another program listens"},
        {refused, 0, Port::host, nothing, "left out by the server: the host's own ports"},
        {filtered, 0, Port::taken, tried, "left out by the server: another program listens"},

        {altered, 300, Port::closed, nothing, "not open at the server"},
        {cut, 300, Port::closed, nothing, "not open at the server"},
        {silent, 300, Port::closed, nothing, "not open at the server"},
        {refused, 0, Port::closed, nothing, "not open at the server"},
        {unreachable, 0, Port::closed, nothing, "not open at the server"},
        {filtered, 0, Port::closed, nothing, "not open at the server"},
        {silent, 300, Port::closed, part, "data lost on the way to the server"},
        {cut, 300, Port::closed, all, "cut on the way back"},

        {altered, 300, Port::open, nothing, "answered by something else on the way"},
        {altered, 300, Port::open, tried, "answered by something else on the way"},  // by a proxy, which connects
        {altered, 300, Port::open, part, "altered on the way to the server"},
        {altered, 300, Port::open, {3, 303}, "altered on the way to the server or back"},
        {altered, 300, Port::open, all, "altered on the way to the server or back"},

        {silent, 300, Port::open, nothing, "answered by something else on the way"},
        {silent, 300, Port::open, tried, "data lost on the way to the server"},
        {silent, 300, Port::open, part, "data lost on the way to the server"},
        {silent, 300, Port::open, all, "data lost on the way back"},
        {silent, 300, Port::open, {0, 300}, "data lost on the way back"},  // figures were reset meanwhile

        {cut, 300, Port::open, nothing, "answered by something else on the way"},
        {cut, 300, Port::open, part, "cut on the way to the server"},
        {cut, 300, Port::open, all, "cut on the way back"},
        {cut, 0, Port::open, tried, "cut on the way to the server"},

        {refused, 0, Port::open, nothing, "rejected on the way to the server, by a RST"},
        {refused, 0, Port::open, tried, "rejected on the way back, by a RST"},
        {unreachable, 0, Port::open, nothing, "rejected on the way to the server, by ICMP"},
        {unreachable, 0, Port::open, tried, "rejected on the way back, by ICMP"},
        {filtered, 0, Port::open, nothing, "SYN lost on the way to the server"},
        {filtered, 0, Port::open, tried, "answer lost on the way back"},
    };
    for (std::size_t number = 0; number < cases.size(); ++number) {
        const auto& row = cases[number];
        CAPTURE(number);
        ServerSide side;
        side.by_port[443] = row.server;
        if (row.port == Port::open) side.open.insert(443);
        if (row.port == Port::taken) side.taken.insert(443);
        if (row.port == Port::host) side.hosts.insert(443);
        const PortResult result{.verdict = row.verdict, .tries = 3, .sent = row.sent, .detail = {}};
        CHECK(reading_of(443, result, side) == row.reading);
    }
}

TEST_CASE("report: ports with the same result share a line; order: verdict, try, number of ports") {
    Probed probed("1-9", {{1, result_of(Verdict::filtered)},
                          {2, result_of(Verdict::cut, "reset after 0 of 4096 bytes")},
                          {3, result_of(Verdict::cut, "closed after 5 of 4096 bytes")},
                          {4, result_of(Verdict::cut, "closed after 5 of 4096 bytes")},
                          {5, result_of(Verdict::echoed, "", 2)},
                          {6, result_of(Verdict::echoed, "", 1)},
                          {7, result_of(Verdict::echoed, "but the end did not come", 3)},
                          {8, result_of(Verdict::echoed, "", 2)}});
    CHECK(probed.report().to_text() == R"(probe of 192.0.2.7: 9 ports, 4096 bytes on each, 1.2 s
  echoed       1 port: 6
  echoed       2 ports, at the second try (a rate limit, or loss): 5,8
  echoed       1 port, at the third try (a rate limit, or loss), but the end did not come: 7
  cut          2 ports, closed after 5 of 4096 bytes: 3-4
  cut          1 port, reset after 0 of 4096 bytes: 2
  filtered     1 port: 1
  not probed   1 port: 9
)");
    CHECK_FALSE(probed.report().is_as_expected());

    (probed.options.expect = PortList()).add("5-8");
    CHECK(nlohmann::json::parse(probed.report().to_json())["as_expected"] == true);
    probed.complete = false;
    CHECK(nlohmann::json::parse(probed.report().to_json())["as_expected"] == false);
    probed.options.expect = PortList();
    probed.options.host = "a.example\x1b";
    CHECK(probed.report().to_text().starts_with(
        "probe of a.example\\x1b (192.0.2.7): 9 ports, 4096 bytes on each, 1.2 s, ended before all was done\n"));
}

TEST_CASE("report: of very many different answers one line gives the number") {
    Probed probed("1-61", {});
    for (std::uint16_t port = 1; port <= 60; ++port)
        probed.results[port] = result_of(Verdict::altered, "at byte 0: '" + std::to_string(port) + "'");
    probed.results[61] = result_of(Verdict::refused);
    const auto text = probed.report().to_text();
    CHECK(text.find("  refused      1 port: 61\n  and 44 more such lines: --json has all\n") != std::string::npos);
    CHECK(text.find("'23': 23\n") != std::string::npos);
    CHECK(text.find("'24': 24\n") == std::string::npos);
    CHECK(nlohmann::json::parse(probed.report().to_json())["results"].size() == 61);
}

TEST_CASE("report: the ports that are expected to echo, and no other") {
    Probed probed("1-9", {{5, result_of(Verdict::echoed)}, {6, result_of(Verdict::echoed)}});
    struct Case {
        std::string expect;
        std::string says;
    };
    for (const auto& [expect, says] :
         std::vector<Case>{{"5-6", ""},
                           {"5,8-9", "expected, and not echoed: 8-9\nechoed, and not expected: 6\n"},
                           {"5", "echoed, and not expected: 6\n"},
                           {"5-7", "expected, and not echoed: 7\n"}}) {
        (probed.options.expect = PortList()).add(expect);
        const auto report = probed.report();
        CHECK(report.is_as_expected() == says.empty());
        CHECK(report.to_text().ends_with("  not probed   7 ports: 1-4,7-9\n" + says));
        CHECK(nlohmann::json::parse(report.to_json())["as_expected"] == says.empty());
    }
    // A port that echoes, but not by this server, does not count.
    (probed.options.expect = PortList()).add("5-6");
    probed.server.emplace().by_port[5] = {.attempts = 1, .received = 4096};
    CHECK(probed.report().echoed().to_string() == "5");
    CHECK_FALSE(probed.report().is_as_expected());
}

TEST_CASE("report: --json has the same figures") {
    Probed probed("7,25", {{7, result_of(Verdict::echoed, "", 2)}, {25, result_of(Verdict::filtered)}});
    probed.server.emplace().by_port[7] = {.attempts = 1, .received = 4096};
    probed.server->open.insert(25);
    probed.options.status = "status.json";
    const auto report = probed.report();
    const auto json = nlohmann::json::parse(report.to_json());
    CHECK(json["host"] == "192.0.2.7");
    CHECK(json["address"] == "192.0.2.7");
    CHECK(json["payload_bytes"] == 4096);
    CHECK(json["seconds"] == 1.25);
    CHECK(json["complete"] == true);
    CHECK(json["results"] == nlohmann::json::parse(R"([
        {"verdict": "echoed", "try": 2, "detail": "", "reading": "through", "count": 1, "list": "7"},
        {"verdict": "filtered", "try": null, "detail": "", "reading": "SYN lost on the way to the server", "count": 1,
         "list": "25"}])"));
    CHECK(
        report.to_text().ends_with("  echoed       1 port, at the second try (a rate limit, or loss), through: 7\n"
                                   "  filtered     1 port, SYN lost on the way to the server: 25\n"
                                   "The server's side counts all its clients since its start, or since SIGUSR2.\n"));
}

}  // namespace echo_server
