// SPDX-License-Identifier: BSD-2-Clause
#include "status/status.h"

#include <doctest/doctest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "dispatch/dispatcher.h"

namespace echo_server {

namespace {

Status some_status() {
    Status status;
    status.json = nlohmann::ordered_json::parse(R"({
        "pid": 34, "pid_in_its_namespace": 34, "version": "1.2.3", "user": "nobody", "uptime_seconds": 183600.5,
        "program_id": 12, "serving": true, "state": "serving",
        "listener": {"address": "127.0.0.1:7777", "waiting": 1, "backlog": 4096, "dropped": 2},
        "ports": {"count": 3, "list": "7-9"},
        "left_out": {"taken": {"count": 0, "list": "none"}, "host": {"count": 0, "list": "none"}},
        "levels": {"echoed": {"count": 1, "list": "7"}, "connected": {"count": 1, "list": "8"},
                   "attempted": {"count": 1, "list": "65535"}, "not_reached": {"count": 1, "list": "9"}},
        "addresses": ["192.0.2.0/24", "::/0"],
        "connections": {"open": 3, "max": 1000, "accepted": 40, "refused": 5, "timed_out": 6},
        "bytes": {"received": 70, "sent": 80},
        "attempts": {"steered": 21, "dropped": {"no_socket": 12, "not_assigned": 13}},
        "by_port": null})");
    status.state = Instance::State::serving;
    status.port_stats.resize(65536);
    status.port_stats[7] = {10, 4, 3, 0, 4100, 4096};
    status.port_stats[8] = {10, 5, 0, 0, 0, 0};
    status.port_stats[65535] = {1, 0, 0, 0, 0, 0};
    return status;
}

/// Of another version, in another PID namespace.
Status unknown_status() {
    Status status;
    status.json = some_status().json;
    for (auto& value : status.json) value = nullptr;
    status.json["program_id"] = 13;
    status.json["pid_in_its_namespace"] = 35;
    status.json["version"] = "2.0.0";
    return status;
}

bool has_line(const std::string& text, const std::string& line) {
    return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("status_text: the text for people") {
    CHECK(to_text({some_status()}) ==
          "echo-server 1.2.3: process 34, user nobody, up 2 d 3 h\n"
          "  ports        3 open: 7-9\n"
          "  echoed       1 port: 7\n"
          "  connected    1 port without an echo: 8\n"
          "  attempted    1 port without a connection: 65535\n"
          "  not reached  1 port: 9\n"
          "  addresses    192.0.2.0/24, ::/0\n"
          "  listener     127.0.0.1:7777, 1 of at most 4096 waiting, 2 not completed\n"
          "  connections  3 open of at most 1000, 40 in all, 5 out of memory, 6 timed out\n"
          "  bytes        70 received, 80 sent\n"
          "  attempts     21 in all\n"
          "  dropped      12 without a socket, 13 not taken by the socket\n");
    CHECK(to_text({}).empty());
}

TEST_CASE("status_text: a long list of ports has 16 ranges, and the number of the other ports") {
    auto status = some_status();
    status.json["ports"] = {{"count", 40}, {"list", "1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31-33,35,101-121"}};
    status.json["levels"]["echoed"] = {{"count", 2}, {"list", "0,65535"}};
    const auto text = to_text({status});
    CHECK(has_line(text, "  ports        40 open: 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31-33 and 22 more"));
    CHECK(has_line(text, "  echoed       2 ports: 0,65535"));
}

TEST_CASE("status_text: each port that was reached is in the table, the busiest first") {
    const auto table = to_port_table({some_status(), some_status()});
    const std::string one =
        "echo-server 1.2.3: process 34, user nobody, up 2 d 3 h\n"
        "   port    attempts  connections   with echo      received          sent\n"
        "      8          10            5           0             0             0\n"
        "      7          10            4           3          4100          4096\n"
        "  65535           1            0           0             0             0\n";
    CHECK(table == one + "\n" + one);
    auto fresh = some_status();
    fresh.port_stats.assign(65536, {});
    CHECK(to_port_table({fresh}) ==
          "echo-server 1.2.3: process 34, user nobody, up 2 d 3 h\n"
          "  no port was reached\n");
}

TEST_CASE("status_text: a port is listed if any of its figures is not 0; why it is left out is not a figure") {
    auto status = some_status();
    for (const auto figure : port_figures) {
        status.port_stats.assign(65536, {});
        status.port_stats[9].*figure = 1;
        CHECK(to_port_table({status}).find("\n      9  ") != std::string::npos);
        CHECK(to_json({status}).find(R"("9": {)") != std::string::npos);
    }
    status.port_stats[9] = {};
    status.port_stats[9].left_out = ECHO_LEFT_OUT_TAKEN;
    CHECK(to_port_table({status}).ends_with("  no port was reached\n"));
    CHECK(to_json({status}).find(R"("by_port": {})") != std::string::npos);
}

TEST_CASE("status_text: if the ports of a server are not known, none counts as not reached") {
    auto draining = some_status();
    draining.json["ports"] = nullptr;
    draining.json["levels"]["not_reached"] = nullptr;
    CHECK(to_text({draining}).find("not reached") == std::string::npos);
    CHECK(to_json({draining}).find("\"not_reached\": null") != std::string::npos);
    CHECK(to_prometheus({draining}).find("level=\"not_reached\"") == std::string::npos);
    CHECK(has_line(to_prometheus({draining}),
                   R"(echo_server_ports_by_level{listener="127.0.0.1:7777",level="attempted"} 1)"));
}

TEST_CASE("status_text: up times") {
    auto status = some_status();
    const auto up = [&](std::chrono::seconds time) {
        status.json["uptime_seconds"] = static_cast<double>(time.count()) + 0.9;
        const auto text = to_text({status});
        const auto start = text.find("up ") + 3;
        return text.substr(start, text.find('\n') - start);
    };
    CHECK(up(std::chrono::seconds(59)) == "59 s");
    CHECK(up(std::chrono::seconds(61)) == "1 min 1 s");
    CHECK(up(std::chrono::seconds(3599)) == "59 min 59 s");
    CHECK(up(std::chrono::seconds(3660)) == "1 h 1 min");
    CHECK(up(std::chrono::seconds(86400)) == "1 d 0 h");
}

TEST_CASE("status_text: what is not known is not made up") {
    const auto status = unknown_status();
    CHECK(
        to_text({status, some_status()})
            .starts_with(
                "echo-server 2.0.0: process 35 of another version of another PID namespace, user ?, up ?, draining\n\n"
                "echo-server 1.2.3: "));
    const auto json = to_json({status});
    for (const std::string name : {"pid", "listener", "ports", "levels", "connections", "attempts", "by_port"})
        CHECK(json.find("\"" + name + "\": null") != std::string::npos);
    CHECK(to_prometheus({status}).ends_with(
        "\necho_server_info{listener=\"\",pid=\"\",version=\"2.0.0\",user=\"\"} 1\n"));
    CHECK(to_port_table({status}).ends_with(", draining\n  its figures by port are unknown\n"));
}

TEST_CASE("status_text: for Prometheus the address of the socket tells servers apart, as it stays the same") {
    auto one = some_status();
    one.json["start_time"] = "1700000000.123";
    auto other = some_status();
    other.json["listener"]["address"] = "127.0.0.1:7778";
    other.json["user"] = "a\"b\\c";
    for (const auto& text : {to_prometheus({one}), to_prometheus({one, other})}) {
        CHECK(
            has_line(text, R"(echo_server_info{listener="127.0.0.1:7777",pid="34",version="1.2.3",user="nobody"} 1)"));
        CHECK(has_line(text, R"(echo_server_connections{listener="127.0.0.1:7777"} 3)"));
        CHECK(has_line(text, R"(echo_server_start_time_seconds{listener="127.0.0.1:7777"} 1700000000.123)"));
        CHECK(has_line(text, R"(echo_server_ports_by_level{listener="127.0.0.1:7777",level="connected"} 1)"));
        CHECK(has_line(text,
                       R"(echo_server_attempts_dropped_total{listener="127.0.0.1:7777",reason="not_assigned"} 13)"));
        CHECK(text.find("port=") == std::string::npos);
    }
    const auto text = to_prometheus({one, other});
    CHECK(has_line(text, R"(echo_server_connections{listener="127.0.0.1:7778"} 3)"));
    CHECK(text.find(R"(user="a\"b\\c")") != std::string::npos);
    CHECK(text.find("# TYPE echo_server_connections gauge") == text.rfind("# TYPE echo_server_connections gauge"));
}

TEST_CASE("status_text: for Prometheus no two samples have the same labels, also while servers replace each other") {
    auto older = some_status();
    older.json["connections"]["open"] = 2;
    auto newer = some_status();
    CHECK(to_prometheus({older, newer}) == to_prometheus({newer}));
    older.json["listener"] = nullptr;
    auto oldest = older;
    oldest.json["connections"]["open"] = 1;
    const auto text = to_prometheus({oldest, older, newer});
    CHECK(has_line(text, R"(echo_server_connections{listener=""} 2)"));
    CHECK(has_line(text, R"(echo_server_connections{listener="127.0.0.1:7777"} 3)"));
    CHECK(text.find("} 1\necho_server_connections{") == std::string::npos);
}

TEST_CASE("status_text: the ports that ranges leave out have a line of their own") {
    auto status = some_status();
    status.json["left_out"] = {{"taken", {{"count", 2}, {"list", "22,80"}}},
                               {"host", {{"count", 0}, {"list", "none"}}}};
    CHECK(has_line(to_text({status}), "  left out     22,80 (another program listens)"));
    status.json["left_out"]["host"] = {{"count", 28232}, {"list", "32768-60999"}};
    CHECK(has_line(to_text({status}),
                   "  left out     22,80 (another program listens), 32768-60999 (the host's own ports)"));
    status.json["left_out"]["taken"] = {{"count", 0}, {"list", "none"}};
    CHECK(has_line(to_text({status}), "  left out     32768-60999 (the host's own ports)"));
}

TEST_CASE("status_text: text from another process is escaped for the terminal") {
    auto status = some_status();
    status.json["version"] = "\x1b[31m";
    CHECK(to_text({status}).starts_with("echo-server \\x1b[31m: "));
}

TEST_CASE("status_text: a name can't fake a line or a metric, or control the terminal") {
    auto status = some_status();
    status.json["user"] = "a\nb\x1b[2J";
    CHECK(to_text({status}).find(R"(, user a\x0ab\x1b[2J, up )") != std::string::npos);
    CHECK(to_prometheus({status}).find(R"(,user="a\nb)") != std::string::npos);
}

}  // namespace echo_server
