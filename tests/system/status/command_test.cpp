// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server status' as a command: its exit codes, wrong usage, and what it can't do.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "base/os.h"
#include "echo_dispatch.h"
#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

namespace {

// In microseconds, of all children that this process has waited for.
long cpu_time_of_children() {
    rusage usage{};
    REQUIRE(::getrusage(RUSAGE_CHILDREN, &usage) == 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1'000'000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

}  // namespace

TEST_CASE("status: a reader that closes early is not a failure, and a full disk is") {
    const Netns netns;
    const Server server(netns, {"--ports", "1-30000"});
    for (int port = 1; port <= 2000; ++port) try_connect(netns, "127.0.0.1", static_cast<std::uint16_t>(port));
    const TempFile code("");
    const auto status = [&](const std::string& to) {
        const auto command = R"({ "$0" status --json; echo $? > "$1"; } )" + to + R"(; cat "$1")";
        return run_ok(netns, {"sh", "-c", command, ECHO_SERVER, code.path()});
    };
    CHECK(status("| head -c 1") == "{0\n");
    CHECK(status("| true") == "0\n");
    CHECK(status("> /dev/full") == "echo-server: writing the status: No space left on device\n1\n");
}

TEST_CASE("status: too few descriptors to look are an error") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto [code, output] = run(netns, echo_server({"status"}), [] { limit_descriptors(8); });
    CHECK(code == 1);
    CHECK(output.ends_with(
        ": Too many open files; the limit is 8: raise it ('ulimit -n 16', or LimitNOFILE in the systemd unit)\n"));
    CHECK(run(netns, echo_server({"status"}), [] { limit_descriptors_softly(8); }).code == 0);
}

TEST_CASE("status: without a server, or without root, it says that, with exit code 1") {
    const Netns netns;
    const Netns other;
    const Server elsewhere(other, {"--ports", "7"});
    const std::string none = "echo-server: no echo-server runs in this network namespace\n";
    const auto text = run(netns, echo_server({"status"}));
    CHECK(text.code == 1);
    CHECK(text.output == none);
    const auto as_json = run(netns, echo_server({"status", "--json"}));
    CHECK(as_json.code == 1);
    CHECK(as_json.output == "{\n  \"instances\": []\n}\n" + none);
    const auto metrics = run(netns, echo_server({"status", "--prometheus"}));
    CHECK(metrics.code == 1);
    CHECK(metrics.output == none);
    const auto denied = run(other, echo_server({"status"}), [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(denied.code == 1);
    CHECK(denied.output ==
          "echo-server: looking for echo-servers among the BPF programs: Operation not permitted; that needs "
          "CAP_SYS_ADMIN: start it as root\n");
}

TEST_CASE("status: what the kernel can't read is an error, and not taken as absent") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    struct Case {
        bpf_cmd call;
        std::string says;
    };
    const std::vector<Case> cases{
        {BPF_OBJ_GET_INFO_BY_FD, "BPF "},
        {BPF_MAP_LOOKUP_ELEM, "reading the BPF map "},
        {BPF_MAP_LOOKUP_BATCH, "reading the BPF map "},
        {BPF_MAP_GET_NEXT_KEY, "reading the BPF map echo_addresses"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.says);
        const auto [code, output] = run(netns, echo_server({"status"}), [&] { fail_bpf(row.call, after(0)); });
        CHECK(code == 1);
        CHECK(output.starts_with("echo-server: "));
        CHECK(output.find(row.says) != std::string::npos);
        CHECK(output.ends_with(": Cannot allocate memory\n"));
    }
    CHECK(status_shows(netns, "  ports        1 open: 7\n"));
}

TEST_CASE("status: without the right to look into the process it does not say that new connections wait") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto without_ptrace = [] { keep_capabilities({CAP_SYS_ADMIN, CAP_BPF}); };
    const auto [code, output] = run(netns, echo_server({"status"}), without_ptrace);
    CHECK(code == 0);
    CHECK(output.find("new connections wait") == std::string::npos);
    CHECK(output.find("  ports        1 open: 7\n") != std::string::npos);
}

TEST_CASE("status: the cost of JSON grows with the ports, not with their square") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto map = static_cast<__u32>(std::stoul(BpfObjects(netns).maps.at("echo_port_stats")));
    const Fd reached(bpf_map_get_fd_by_id(map));
    REQUIRE(reached);
    const auto time_of_json = [&](__u32 ports) {
        std::vector<__u32> keys(ports);
        std::iota(keys.begin(), keys.end(), __u32{65536} - ports);
        const echo_port_stats figures{
            .lookups = 3, .accepted = 2, .echoed = 1, .left_out = 0, .received = 6, .sent = 5};
        const std::vector values(ports, figures);
        REQUIRE(bpf_map_update_batch(reached.get(), keys.data(), values.data(), &ports, nullptr) == 0);
        auto shortest = std::numeric_limits<long>::max();
        for (int i = 0; i < 3; ++i) {
            const auto before = cpu_time_of_children();
            const auto shown = run_ok(netns, echo_server({"status", "--json"}));
            shortest = std::min(shortest, cpu_time_of_children() - before);
            CHECK(count(shown, R"("echoed": 1)") == ports);
        }
        return shortest;
    };
    const auto of_few = time_of_json(8192);
    const auto of_all = time_of_json(65535);
    MESSAGE("CPU time: ", of_few, " and ", of_all, " us");
    CHECK(of_all < of_few * 16);
}

TEST_CASE("status: wrong usage of it, or of reload, is exit code 2, and points to its help") {
    const Netns netns;
    struct Case {
        Command arguments;
        std::string says;
    };
    const std::vector<Case> cases = {
        {{"status", "--json", "--prometheus"}, "at most 1 options be given from [--ports,--json,--prometheus]"},
        {{"status", "--ports", "--json"}, "at most 1 options be given from [--ports,--json,--prometheus]"},
        {{"status", "--yaml"}, "not expected: --yaml"},
        {{"status", "7"}, "not expected: 7"},
        {{"status", "--json=other"}, "--json = other"},
        {{"--ports", "7", "status"}, "status excludes --ports"},
        {{"reload", "0"}, "PID: '0' is not a whole number from 1 to 2147483647; "},
        {{"reload", "1", "2"}, "not expected: 2"},
        {{"--ports", "7", "reload"}, "reload excludes --ports"},
    };
    for (const auto& [arguments, says] : cases) {
        const auto result = run(netns, echo_server(arguments));
        const auto& output = result.output;
        CAPTURE(output);
        CHECK(result.code == 2);
        const auto* subcommand = std::ranges::find(arguments, "reload") != arguments.end() ? "reload" : "status";
        CHECK(output.starts_with("echo-server: "));
        CHECK(output.find(says) != std::string::npos);
        CHECK(output.ends_with(fmt::format("; see echo-server {} --help\n", subcommand)));
        CHECK(count(output, "\n") == 1);
    }
    CHECK(run_ok(netns, echo_server({"status", "--help"})).find("--prometheus") != std::string::npos);
    CHECK(run_ok(netns, echo_server({"reload", "--help"})).find("echo-server reload [OPTIONS] [PID]\n") !=
          std::string::npos);
}

}  // namespace echo_server
