// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server probe' against the real server.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/mount.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/os.h"
#include "support/child.h"
#include "support/client.h"
#include "support/peer.h"
#include "support/server.h"
#include "support/shown_status.h"
#include "support/skip.h"

namespace echo_server {

namespace {

using namespace std::string_view_literals;
using nlohmann::json;

Command probe_with(Command arguments) {
    arguments.insert(arguments.begin(), "probe");
    return echo_server(arguments);
}

// Exit code and text, with "T" for the time.
Result probed(const Netns& netns, const Command& arguments, const std::function<void()>& in_child = {}) {
    const auto [code, output] = run(netns, probe_with(arguments), in_child);
    return {code, std::regex_replace(output, std::regex(R"(\d+\.\d s)"), "T")};
}

// Counts segments that leave a namespace.
class Segments {
 public:
    explicit Segments(const Netns& netns) : netns_(netns) {
        run_ok(netns, {"nft", "-f",
                       TempFile(R"(
            table inet segments {
                counter syns {}
                counter ends {}
                counter resets {}
                set connects { type inet_service . inet_service; flags dynamic; size 65536; }
                chain out {
                    type filter hook output priority 0;
                    tcp flags & (syn | ack) == syn counter name syns
                    tcp flags & fin == fin counter name ends
                    tcp flags & rst == rst counter name resets
                    tcp flags & (syn | ack) == syn add @connects { tcp sport . tcp dport }
                }
            })")
                           .path()});
    }

    [[nodiscard]] int count(const std::string& name) const {
        const auto shown = run_ok(netns_, {"nft", "list", "counter", "inet", "segments", name});
        std::smatch found;
        REQUIRE(std::regex_search(shown, found, std::regex(R"(packets (\d+))")));
        return std::stoi(found[1]);
    }

    /// Unlike the counter of SYNs, without those that the kernel sends again.
    [[nodiscard]] std::size_t connects() const {
        const auto shown =
            json::parse(run_ok(netns_, {"nft", "--json", "list", "set", "inet", "segments", "connects"}));
        return shown["nftables"].back()["set"]["elem"].size();
    }

 private:
    const Netns& netns_;
};

void add_rule(const Netns& netns, const std::string& rule) {
    run_ok(netns, {"nft", "add", "table", "inet", "firewall"});
    run_ok(netns, {"nft", "add", "chain", "inet", "firewall", "in", "{ type filter hook input priority 0; }"});
    run_ok(netns, {"nft", "add", "rule", "inet", "firewall", "in", rule});
}

}  // namespace

TEST_CASE("probe: all 65,535 ports echo; it needs little memory, and leaves a router few connections") {
    const Network network;
    const Segments segments(network.host);
    const Server server(network.vm, {"--ports", "1-65535", "--allow-ephemeral"});
    Process probe(network.host, probe_with({Network::vm_ip4}));
    CHECK(probe.wait() == 0);
    CHECK(std::regex_match(probe.output(),
                           std::regex("probe of 192\\.0\\.2\\.2: 65535 ports, 4096 bytes on each, \\d+\\.\\d s\n"
                                      "  echoed       65535 ports: 1-65535\n")));
#ifdef NDEBUG  // sanitizers keep much more
    CHECK(probe.peak_kb() < 64 * 1024);
#endif
    // On 257 ports the probe ends the connection by a FIN. The kernel may have sent some again.
    CHECK(segments.count("ends") >= 257);
    CHECK(segments.count("ends") < 600);
    CHECK(segments.count("resets") >= 65535 - 257);
}

TEST_CASE("probe: with few ports each connection ends by a FIN of both sides") {
    const Network network;
    const Segments segments(network.host);
    const Server server(network.vm, {"--ports", "1-20"});
    CHECK(probed(network.host, {"--ports", "1-20", Network::vm_ip4}).code == 0);
    CHECK(segments.count("ends") >= 20);
    CHECK(segments.count("resets") == 0);
}

TEST_CASE("probe: --expect compares, as text and as JSON") {
    const Network network;
    const Server server(network.vm, {"--ports", "1-10,20"});
    const auto text = [&](const std::string& ports, const Command& flags) {
        Command arguments{"--retries", "0", "--ports", ports, Network::vm_ip4};
        arguments.insert(arguments.begin(), flags.begin(), flags.end());
        const auto [code, output] = probed(network.host, arguments);
        return fmt::format("{}: {}", code, output);
    };
    const std::string nine_of_eleven =
        "probe of 192.0.2.2: 11 ports, 4096 bytes on each, T\n"
        "  echoed       9 ports: 3-10,20\n"
        "  refused      2 ports: 11-12\n";
    CHECK(text("3-12,20", {}) == "1: " + nine_of_eleven);
    CHECK(text("3-12,20", {"--expect", "3-10,20"}) == "0: " + nine_of_eleven);
    CHECK(text("3-12,20", {"--expect", "3-9,11"}) ==
          "1: " + nine_of_eleven + "expected, and not echoed: 11\nechoed, and not expected: 10,20\n");

    const auto [code, output] =
        run(network.host, probe_with({"--json", "--retries", "0", "--ports", "20-21", "--size", "5", Network::vm_ip4}));
    CHECK(code == 1);
    auto shown = json::parse(output);
    CHECK(shown["seconds"].is_number_float());
    shown.erase("seconds");
    const auto expected = json::parse(R"({
        "host": "192.0.2.2", "address": "192.0.2.2", "payload_bytes": 5, "complete": true, "as_expected": false,
        "results": [
            {"verdict": "echoed", "try": 1, "detail": "", "reading": null, "count": 1, "list": "20"},
            {"verdict": "refused", "try": null, "detail": "", "reading": null, "count": 1, "list": "21"}
        ]})");
    CHECK(shown == expected);
}

TEST_CASE("probe: takes names and addresses of both families, also with a zone") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Network network;
    run_ok(network.host, {"ip", "address", "add", "fe80::1/64", "dev", "to-vm", "nodad"});
    run_ok(network.vm, {"ip", "address", "add", "fe80::2/64", "dev", "to-host", "nodad"});
    const Server server(network.vm, {"--ports", "7"});
    const TempFile hosts("192.0.2.2 server.example\n2001:db8::2 server.example\n");
    const auto with_hosts = [&] {
        if (!leave_mount_namespace() || ::mount(hosts.path().c_str(), "/etc/hosts", nullptr, MS_BIND, nullptr) != 0)
            std::abort();
    };
    struct Case {
        Command target;
        std::string title;
    };
    const std::vector<Case> cases = {
        {{"192.0.2.2"}, "192.0.2.2"},
        {{"2001:db8::2"}, "2001:db8::2"},
        {{"fe80::2%to-vm"}, "fe80::2%to-vm"},
        {{"-4", "server.example"}, "server.example (192.0.2.2)"},
        {{"-6", "server.example"}, "server.example (2001:db8::2)"},
    };
    for (const auto& one : cases) {
        Command arguments{"--ports", "7"};
        arguments.insert(arguments.end(), one.target.begin(), one.target.end());
        const auto [code, output] = probed(network.host, arguments, with_hosts);
        CHECK(code == 0);
        CHECK(output ==
              fmt::format("probe of {}: 1 port, 4096 bytes on each, T\n  echoed       1 port: 7\n", one.title));
    }
    const auto [code, output] = probed(network.host, {"server.example", "--ports", "7"}, with_hosts);
    CHECK(code == 0);
    CHECK(output.starts_with("probe of server.example (2001:db8::2): "));
}

TEST_CASE("probe: each payload comes back whole") {
    const Netns netns;
    const Server server(netns, {"--ports", "7-8"});
    const TempFile five_bytes("12\0\xff\n"sv);
    struct Case {
        Command flags;
        std::string size;
    };
    const std::vector<Case> cases = {
        {{"--size", "1"}, "1 byte"},
        {{"--size", "16777216"}, "16777216 bytes"},
        {{"--payload", "hex:0D0a"}, "2 bytes"},
        {{"--payload", "smtp"}, "16 bytes"},
        {{"--payload", "@" + five_bytes.path()}, "5 bytes"},
        {{"--payload", "tls"}, "\\d+ bytes"},
        {{"--payload", "http"}, "\\d+ bytes"},
        {{"--payload", "ssh"}, "\\d+ bytes"},
    };
    for (const auto& one : cases) {
        Command arguments{"--ports", "7-8", "127.0.0.1"};
        arguments.insert(arguments.end(), one.flags.begin(), one.flags.end());
        const auto result = probed(netns, arguments);
        CAPTURE(result.output);
        CHECK(result.code == 0);
        CHECK(
            std::regex_match(result.output, std::regex(fmt::format("probe of 127\\.0\\.0\\.1: 2 ports, {} on each, T\n"
                                                                   "  echoed       2 ports: 7-8\n",
                                                                   one.size))));
    }
}

TEST_CASE("probe: --hold sends all bytes again on the same connection") {
    const Netns netns;
    const Server server(netns, {"--ports", "7-9"});
    CHECK(probed(netns, {"--hold", "1", "--size", "1000", "--ports", "7-9", "127.0.0.1"}).code == 0);
    const json twice{{"attempts", 1}, {"connections", 1}, {"echoed", 1}, {"received", 2000}, {"sent", 2000}};
    const json expected{{"7", twice}, {"8", twice}, {"9", twice}};
    eventually([&] { return only_status(netns)["by_port"] == expected; });
    CHECK(only_status(netns)["by_port"] == expected);
}

TEST_CASE("probe: a port that fails is tried again, and the report says at which try it echoed") {
    const Netns netns;
    std::atomic<int> connections = 0;
    const Peer second(netns, 7, [&](Fd& client) {
        if (++connections % 2 == 0)
            echo_back(client);
        else
            receive_from(client, 4096);
    });
    CHECK(probed(netns, {"--ports", "7", "--retries", "1", "127.0.0.1"}).output ==
          "probe of 127.0.0.1: 1 port, 4096 bytes on each, T\n"
          "  echoed       1 port, at the second try (a rate limit, or loss): 7\n");
    CHECK(connections == 2);
    CHECK(probed(netns, {"--ports", "7", "--retries", "0", "127.0.0.1"}).output ==
          "probe of 127.0.0.1: 1 port, 4096 bytes on each, T\n"
          "  cut          1 port, closed after 0 of 4096 bytes: 7\n");
    CHECK(connections == 3);
}

TEST_CASE("probe: of more than 1,000 ports that fail alike, some are tried again, and the rest only if one echoes") {
    const Network network;
    const Segments segments(network.host);
    const Command command{"--ports", "1001-2500", Network::vm_ip4};
    SUBCASE("none echoes") {
        CHECK(probed(network.host, command).code == 1);
        CHECK(segments.connects() == 1500 + 256);
    }
    SUBCASE("each try gets a few ICMP errors") {
        add_rule(network.vm, "tcp dport 1001-2500 reject");
        CHECK(probed(network.host, command).code == 1);
        CHECK(segments.connects() <= 1500 + 2 * 256);
    }
    SUBCASE("a server starts meanwhile") {
        Process probe(network.host, probe_with(command));
        REQUIRE(eventually([&] { return segments.count("syns") >= 1500; }));
        const Server server(network.vm, {"--ports", "1001-2500"});
        CHECK(probe.wait() == 0);
        CHECK(probe.output().find("1500 ports, at the") != std::string::npos);
    }
}

TEST_CASE("probe: where a firewall drops the data of each connection, many wait for it at the same time") {
    const Network network;
    add_rule(network.vm, "tcp dport 1001-2500 meta length > 500 drop");
    const Server server(network.vm, {"--ports", "1001-2500"});
    Process probe(network.host, probe_with({"--ports", "1001-2500", "--parallel", "16", "--timeout", "2", "--retries",
                                            "0", Network::vm_ip4}));
    CHECK(eventually([&] { return only_status(network.vm)["connections"]["open"] > 160; }));
    CHECK(probe.wait() == 1);
    CHECK(probe.output().find("silent       1500 ports, 0 of 4096 bytes: 1001-2500") != std::string::npos);
}

TEST_CASE("probe: a socket that connects to itself is not an echo") {
    const Netns netns;
    set_sysctl(netns, "net/ipv4/ip_local_port_range", "40000 40007");
    for (int i = 0; i < 10; ++i)
        CHECK(probed(netns, {"--ports", "40000-40007", "--retries", "0", "127.0.0.1"}).output ==
              "probe of 127.0.0.1: 8 ports, 4096 bytes on each, T\n"
              "  refused      8 ports: 40000-40007\n");
}

#ifdef NDEBUG  // sanitizers need /proc themselves
TEST_CASE("probe: needs no privileges, and no /proc") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const Server server(netns, {"--ports", "7-8"});
    const auto [code, output] = probed(netns, {"--ports", "7-9", "--retries", "0", "127.0.0.1"}, [] {
        if (!leave_mount_namespace() || ::umount2("/proc", MNT_DETACH) != 0) std::abort();
        become_ordinary({});
    });
    CHECK(code == 1);
    CHECK(output ==
          "probe of 127.0.0.1: 3 ports, 4096 bytes on each, T\n"
          "  echoed       2 ports: 7-8\n"
          "  refused      1 port: 9\n");
}
#endif

}  // namespace echo_server
