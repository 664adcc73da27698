// SPDX-License-Identifier: BSD-2-Clause
// Two echo-servers in one network namespace: each has a socket and ports of its own.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/capability.h>

#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

const Command second_socket{"--listen", "127.0.0.1:7778"};

Command second(const std::string& ports, const Command& more = {}) {
    Command command{"--ports", ports};
    command.insert(command.end(), second_socket.begin(), second_socket.end());
    command.insert(command.end(), more.begin(), more.end());
    return command;
}

}  // namespace

TEST_CASE("two instances: root starts and checks a second one only with ports of its own") {
    const Netns netns;
    const TempFile file("7,70-79\n");
    const Server first(netns, {"--ports-file", file.path()});
    for (const Command& more : {Command{}, {"--check"}}) {
        CAPTURE(more.size());
        const auto named = run(netns, echo_server(second("8,77", more)));
        CHECK(named.code == 1);
        CHECK(named.output == fmt::format("echo-server: another echo-server (process {}) has ports of this list open: "
                                          "77; leave them out here or there\n",
                                          first.pid()));
        const auto range = run(netns, echo_server(second("1-75", more)));
        CHECK(range.code == 1);
        CHECK(range.output == fmt::format("echo-server: another echo-server (process {}) has ports of this list open: "
                                          "7,70-75; leave them out here or there\n",
                                          first.pid()));
    }
    CHECK(run_ok(netns, echo_server(second("8-9", {"--check"}))) ==
          "nothing is wrong; a start would have 2 TCP ports open: 8-9\n");
    {
        const Server beside(netns, second("8-9"));
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(echoes(netns, "127.0.0.1", 8));
        // Each check knows which server it is about.
        CHECK(run(netns, echo_server({"--check", "--ports", "7,70-79"})).code == 0);
        CHECK(run(netns, echo_server(second("8-9", {"--check"}))).code == 0);
        CHECK(run(netns, echo_server({"--check", "--ports", "7-8"})).output.find(" has ports of this list open: 8; ") !=
              std::string::npos);
        CHECK(status_shows(netns, "  ports        11 open: 7,70-79\n"));
        CHECK(status_shows(netns, "  ports        2 open: 8-9\n"));
        const auto reload = run(netns, echo_server({"reload"}));
        CHECK(reload.code == 1);
        CHECK(reload.output.find("several processes accept reloads in this network namespace") != std::string::npos);
        file.write("7,70-80\n");
        CHECK(run_ok(netns, echo_server({"reload", std::to_string(first.pid())})).find("added 80;") !=
              std::string::npos);
    }
    CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("two instances: both can start at the same moment, but with ports in common at most one does") {
    for (int i = 0; i < 20; ++i) {
        const Netns netns;
        Process one(netns, echo_server({"--ports", "7"}));
        Process other(netns, echo_server(second("8")));
        one.wait_for("  stop ");
        other.wait_for("  stop ");
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(echoes(netns, "127.0.0.1", 8));
    }
    for (int i = 0; i < 20; ++i) {
        const Netns netns;
        Process one(netns, echo_server({"--ports", "7"}));
        Process other(netns, echo_server(second("7")));
        CHECK(start_is_over(one));
        CHECK(start_is_over(other));
        const bool one_serves = one.output().find("  stop ") != std::string::npos;
        const bool other_serves = other.output().find("  stop ") != std::string::npos;
        CHECK_FALSE((one_serves && other_serves));
    }
}

TEST_CASE("two instances: --check knows the only server by its flags, also if the kernel has chosen the port") {
    const Netns netns;
    const Server server(netns, {"--ports", "7", "--listen", "127.0.0.1:0"});
    CHECK(run(netns, echo_server({"--check", "--ports", "7", "--listen", "127.0.0.1:0"})).code == 0);
}

TEST_CASE("two instances: on addresses of their own they have the same ports") {
    const Netns netns;
    const Server first(netns, {"--ports", "7", "--address", "127.0.0.0/9"});
    const auto refused = run(netns, echo_server(second("7", {"--address", "127.1.0.0/16"})));
    CHECK(refused.code == 1);
    CHECK(refused.output.find(" has ports of this list open: 7; ") != std::string::npos);
    const Server beside(netns, second("7", {"--address", "127.128.0.0/9"}));
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(echoes(netns, "127.200.0.1", 7));
    CHECK(status_shows(netns, "  echoed       1 port: 7\n"));
}

TEST_CASE("two instances: a range leaves out the socket of the other one") {
    const Netns netns;
    const Server first(netns, {"--ports", "7"});
    Server beside(netns, second("7000-8000"));
    CHECK(beside.output().find(": 1000 TCP ports open: 7000-7776,7778-8000; left out: 7777 (echo-server)\n") !=
          std::string::npos);
}

}  // namespace echo_server
