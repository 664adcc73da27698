// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server status', and whether it is true.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>

#include "echo_dispatch.h"
#include "echo_dispatch.skel.h"
#include "support/client.h"
#include "support/nmap.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

namespace {

using nlohmann::json;

/// The server writes the counters a moment after the client has its answer.
bool becomes(const Netns& netns, const std::function<bool(const json&)>& condition) {
    return eventually([&] { return condition(only_status(netns)); });
}

}  // namespace

TEST_CASE("status: the three formats agree with what an nmap scan of 1,000 ports did") {
    const Network network;
    const Server server(network.vm, {"--ports", "1-1000"});
    // If nmap sent probes again, a slow machine would change the counts.
    nmap(network.host, {"-sT", "-p", "1-1000", "--max-retries", "0", "--min-rtt-timeout", "5s", Network::vm_ip4});
    nmap(network.host, {"-sT", "-p", "991-1010", "--max-retries", "0", "--min-rtt-timeout", "5s", Network::vm_ip4});
    CHECK(echoes(network.host, Network::vm_ip6, 7, "twelve bytes"));
    REQUIRE(becomes(network.vm, [](const json& shown) { return shown["connections"]["open"] == 0; }));

    const auto shown = only_status(network.vm);
    CHECK(shown["pid"] == server.pid());
    CHECK(shown["version"] == ECHO_SERVER_VERSION);
    CHECK(shown["user"] == "nobody");
    CHECK(shown["uptime_seconds"] > 0);
    CHECK(shown["uptime_seconds"] < 60);
    CHECK(shown["serving"] == true);
    CHECK(shown["listener"]["address"] == "127.0.0.1:7777");
    CHECK(shown["listener"]["waiting"] == 0);
    CHECK(shown["listener"]["dropped"] == 0);
    CHECK(shown["ports"]["count"] == 1000);
    CHECK(shown["ports"]["list"] == "1-1000");
    CHECK(shown["addresses"] == json::array());
    CHECK(shown["connections"]["accepted"] == 1011);
    CHECK(shown["connections"]["refused"] == 0);
    CHECK(shown["connections"]["max"] > 1000);
    CHECK(shown["bytes"]["received"] == 12);
    CHECK(shown["bytes"]["sent"] == 12);
    CHECK(shown["attempts"]["steered"] == 1011);
    CHECK(shown["attempts"]["dropped"]["no_socket"] == 0);
    CHECK(shown["attempts"]["dropped"]["not_assigned"] == 0);
    const auto& by_port = shown["by_port"];
    CHECK(by_port.size() == 1000);
    for (int port = 1; port <= 1000; ++port) {
        CAPTURE(port);
        const int attempts = port > 990 || port == 7 ? 2 : 1;
        CHECK(by_port[std::to_string(port)] == json{{"attempts", attempts},
                                                    {"connections", attempts},
                                                    {"echoed", port == 7 ? 1 : 0},
                                                    {"received", port == 7 ? 12 : 0},
                                                    {"sent", port == 7 ? 12 : 0}});
    }

    const auto text = run_ok(network.vm, echo_server({"status"}));
    CHECK(std::regex_search(text, std::regex(fmt::format("^echo-server {}: process {}, user nobody, up \\d+ s\n",
                                                         ECHO_SERVER_VERSION, server.pid()))));
    for (const std::string line :
         {"listener     127.0.0.1:7777, 0 of at most 4096 waiting, 0 not completed", "ports        1000 open: 1-1000",
          "addresses    any", "1011 in all, 0 out of memory, 0 timed out", "bytes        12 received, 12 sent",
          "dropped      0 without a socket, 0 not taken by the socket", "attempts     1011 in all",
          "echoed       1 port: 7", "connected    999 ports without an echo: 1-6,8-1000",
          "attempted    none without a connection", "not reached  none"}) {
        CAPTURE(line);
        CHECK(text.find(line + "\n") != std::string::npos);
    }

    const auto metrics = run_ok(network.vm, echo_server({"status", "--prometheus"}));
    for (const std::string name :
         {"connections_accepted_total{} 1011", "connections{} 0", "ports{} 1000", "received_bytes_total{} 12",
          "sent_bytes_total{} 12", "attempts_steered_total{} 1011", "serving{} 1", "backlog_dropped_total{} 0",
          R"(ports_by_level{,level="connected"} 999)", R"(ports_by_level{,level="not_reached"} 0)"}) {
        CAPTURE(name);
        auto sample = name;
        sample.insert(sample.find('{') + 1, R"(listener="127.0.0.1:7777")");
        CHECK(metrics.find("\necho_server_" + sample + "\n") != std::string::npos);
    }
    CHECK(metrics.find(fmt::format("echo_server_info{{listener=\"127.0.0.1:7777\",pid=\"{}\",version=\"{}\","
                                   "user=\"nobody\"}} 1\n",
                                   server.pid(), ECHO_SERVER_VERSION)) != std::string::npos);
}

TEST_CASE("status: shows open connections, drops, prefixes and a drain") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--address", "127.0.0.0/8", "--address", "::1", "--drain-timeout", "3600"});
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    auto shown = only_status(netns);
    CHECK(shown["connections"]["open"] == 1);
    CHECK(shown["addresses"] == json::array({"127.0.0.0/8", "::1"}));

    server.signal(SIGTERM);
    server.wait_for("waiting up to");
    shown = only_status(netns);
    CHECK(shown["serving"] == false);
    CHECK(shown["listener"] == nullptr);
    CHECK(shown["connections"]["open"] == 1);
    const auto text = run_ok(netns, echo_server({"status"}));
    CHECK(text.find(", draining\n") != std::string::npos);
    CHECK(text.find("  ports ") == std::string::npos);
    client.shutdown_write();
    CHECK(server.wait() == 0);
}

TEST_CASE("status: a replacement shows both, the old one draining") {
    const Netns netns;
    Server older(netns, {"--ports", "7", "--drain-timeout", "3600"});
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    const Server newer(netns, {"--ports", "7", "--replace"});
    older.wait_for("waiting up to");
    const auto servers = status(netns);
    REQUIRE(servers.size() == 2);
    for (const auto& shown : servers) {
        CHECK(shown["serving"] == (shown["pid"] == newer.pid()));
        CHECK(shown["connections"]["open"] == (shown["pid"] == newer.pid() ? 0 : 1));
        CHECK(shown["ports"].is_null() == (shown["pid"] != newer.pid()));
        CHECK(shown["listener"].is_null() == (shown["pid"] != newer.pid()));
    }
}

TEST_CASE("status: for a process in another PID namespace it shows no user, and no PID of this namespace") {
    const Netns netns;
    const Process server(netns,
                         {"unshare", "--pid", "--fork", "--kill-child", ECHO_SERVER, "--ports", "7", "--user", "root"});
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));
    const auto shown = only_status(netns);
    CHECK(shown["pid"] == nullptr);
    CHECK(shown["pid_in_its_namespace"] == 1);
    CHECK(shown["user"] == nullptr);
    CHECK(status_shows(netns, ": process 1 of another PID namespace, user ?, up "));
    CHECK(run(netns, echo_server({"--ports", "7"})).output.find(" already (process 1 of another PID namespace): ") !=
          std::string::npos);
    const auto [code, output] = run(netns, echo_server({"--ports", "7", "--replace"}));
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: replacing process 1 of another PID namespace: start the new server in that namespace, or stop "
          "the old one there first; the old server keeps running\n");
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("status: a program of another version is shown without unknown figures; one without a process is not") {
    const Netns netns;
    const Netns::Entered entered(netns);
    std::unique_ptr<echo_dispatch_bpf, void (*)(echo_dispatch_bpf*)> other(echo_dispatch_bpf::open(),
                                                                           echo_dispatch_bpf::destroy);
    REQUIRE(other != nullptr);
    // Its maps have the names of our maps, but other sizes.
    REQUIRE(bpf_map__set_value_size(other->maps.echo_drops, 2 * sizeof(__u64)) == 0);
    REQUIRE(bpf_map__set_value_size(other->maps.echo_port_stats, 2 * sizeof(echo_port_stats)) == 0);
    REQUIRE(echo_dispatch_bpf::load(other.get()) == 0);
    REQUIRE(bpf_prog_bind_map(bpf_program__fd(other->progs.echo_dispatch), bpf_map__fd(other->maps.echo_instance),
                              nullptr) == 0);
    std::unique_ptr<bpf_link, int (*)(bpf_link*)> link(
        bpf_program__attach_netns(other->progs.echo_dispatch, netns.fd()), bpf_link__destroy);
    REQUIRE(link != nullptr);
    // As in the talk: a program of this name which is not an echo-server.
    CHECK(run(netns, echo_server({"status"})).code == 1);
    CHECK(Server(netns, {"--ports", "7"}).output().find("another sk_lookup program is attached here, which is not") !=
          std::string::npos);

    const __u32 key = 0;
    struct echo_instance identity{};
    identity.pid = static_cast<__u32>(::getpid());
    REQUIRE(bpf_map__update_elem(other->maps.echo_instance, &key, sizeof(key), &identity, sizeof(identity), BPF_ANY) ==
            0);
    const auto shown = only_status(netns);
    for (const std::string unknown :
         {"pid", "user", "listener", "ports", "levels", "connections", "attempts", "by_port", "addresses"}) {
        CAPTURE(unknown);
        CHECK(shown[unknown] == nullptr);
    }
    CHECK(shown["state"] == "without socket");
    CHECK(std::regex_match(
        run_ok(netns, echo_server({"status"})),
        std::regex("echo-server : process \\d+ of another version of another PID namespace, user \\?, up [^,]*, "
                   "without its [^\n]*\n")));
    const auto replace = run(netns, echo_server({"--ports", "7", "--replace"}));
    CHECK(replace.code == 1);
    CHECK(replace.output.find(" of another PID namespace: start the new server in that namespace") !=
          std::string::npos);
}

}  // namespace echo_server
