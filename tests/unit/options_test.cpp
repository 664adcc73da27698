// SPDX-License-Identifier: BSD-2-Clause
#include "options.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "net/address.h"

namespace echo_server {

namespace {

auto parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "echo-server");
    std::vector<char*> argv;
    argv.reserve(arguments.size());
    for (auto& argument : arguments) argv.push_back(argument.data());
    return parse_command_line(static_cast<int>(argv.size()), argv.data());
}

Options options(const std::vector<std::string>& arguments) {
    const auto parsed = parse(arguments);
    REQUIRE(std::holds_alternative<Options>(parsed));
    return std::get<Options>(parsed);
}

}  // namespace

TEST_CASE("options: defaults") {
    const auto given = options({"--ports", "7"});
    CHECK(given.ports.ports().to_string() == "7");
    CHECK_FALSE(given.ports_file);
    CHECK_FALSE(given.listen);
    CHECK(given.drain_timeout == std::chrono::seconds(5));
    CHECK(given.idle_timeout == std::chrono::seconds(0));
    CHECK(given.addresses.empty());
    CHECK_FALSE(given.shadow_listeners);
    CHECK_FALSE(given.allow_ephemeral);
    CHECK_FALSE(given.replace);
    CHECK_FALSE(given.user);
    CHECK_FALSE(given.pin);
    CHECK_FALSE(given.max_connections);
    CHECK_FALSE(given.verbose);
}

TEST_CASE("options: --ports may be repeated, and its value may have blanks") {
    CHECK(options({"--ports", "7", "--ports=77", "--ports", " 1 - 3 , !2 "}).ports.ports().to_string() == "1,3,7,77");
    CHECK(options({"--ports", "!22", "--ports", "20-24"}).ports.ports().to_string() == "20-21,23-24");
}

TEST_CASE("options: a ports file may come with exclusions only, or with nothing") {
    CHECK(options({"--ports-file", "some file"}).ports_file == "some file");
    CHECK(options({"--ports-file", "f", "--ports", "!22"}).ports.ports().empty());
}

TEST_CASE("options: the rest") {
    const auto given = options({"--ports", "7", "--listen", "[::]:1", "--drain-timeout", "0", "--verbose"});
    CHECK(to_string(given.listen.value()) == "[::]:1");
    CHECK(given.drain_timeout == std::chrono::seconds(0));
    CHECK(given.verbose);
    const auto more = options({"--ports", "7", "--address", "192.0.2.0/24", "--address=::/0", "--shadow-listeners",
                               "--replace", "--user", "daemon", "--pin", "/sys/fs/bpf", "--threads", "3",
                               "--max-connections", "100", "--idle-timeout", "60"});
    REQUIRE(more.addresses.size() == 2);
    CHECK(to_string(more.addresses.front()) == "192.0.2.0/24");
    CHECK(to_string(more.addresses.back()) == "::/0");
    CHECK(more.shadow_listeners);
    CHECK(options({"--ports", "7", "--allow-ephemeral"}).allow_ephemeral);
    CHECK(more.replace);
    CHECK(more.user == "daemon");
    CHECK(more.pin == "/sys/fs/bpf");
    CHECK(more.threads == 3);
    CHECK(more.max_connections == 100);
    CHECK(more.idle_timeout == std::chrono::seconds(60));
}

TEST_CASE("options: status and its formats") {
    const auto format = [](const std::vector<std::string>& arguments) {
        return std::get<StatusFormat>(parse(arguments));
    };
    CHECK((format({"status"}) == to_text));
    CHECK((format({"status", "--ports"}) == to_port_table));
    CHECK((format({"status", "--json"}) == to_json));
    CHECK((format({"status", "--prometheus"}) == to_prometheus));
}

TEST_CASE("options: reload and the process that it names") {
    CHECK_FALSE(std::get<std::optional<pid_t>>(parse({"reload"})));
    CHECK(std::get<std::optional<pid_t>>(parse({"reload", "7"})) == 7);
    CHECK(std::get<int>(parse({"reload", "4294967297"})) == 2);
}

TEST_CASE("options: a port list in brackets is an error") { CHECK(std::get<int>(parse({"--ports", "[7,77]"})) == 2); }

}  // namespace echo_server
