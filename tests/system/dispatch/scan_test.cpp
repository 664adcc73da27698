// SPDX-License-Identifier: BSD-2-Clause
// The view of a scan from another machine.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "support/client.h"
#include "support/nmap.h"
#include "support/port_key.h"
#include "support/server.h"

namespace echo_server {

namespace {

/// The ports that nmap reports as open.
std::string scan(const Netns& from, const std::string& address, const std::string& ports) {
    Command command{"-sT", "-T5", "-oG", "-", "-p", ports, address};
    if (address.find(':') != std::string::npos) command.emplace_back("-6");
    return ports_in(nmap(from, command), R"((\d+)/open/tcp)");
}

// CPU time, because the clock also counts other processes, and the pause after the previous reload.
#ifdef NDEBUG
constexpr std::chrono::milliseconds promised{200};
#else
constexpr std::chrono::milliseconds promised{2000};  // for a debug build
#endif

}  // namespace

TEST_CASE("scan: exactly the listed ports are open, on both families, through one listener") {
    const Network network;
    const Server server(network.vm, {"--ports", "7,77,777"});
    CHECK(scan(network.host, Network::vm_ip4, "1-1000") == "7,77,777");
    CHECK(scan(network.host, Network::vm_ip6, "1-1000") == "7,77,777");
    const auto listeners = run_ok(network.vm, {"ss", "-Hltn"});
    CHECK(std::count(listeners.begin(), listeners.end(), '\n') == 1);
    CHECK(listeners.find("127.0.0.1]:7777") != std::string::npos);
    // Only this machine can reach the listener's own port.
    CHECK(try_connect(network.host, Network::vm_ip4, 7777) == ECONNREFUSED);
    CHECK(try_connect(network.host, Network::vm_ip6, 7777) == ECONNREFUSED);
    CHECK(echoes(network.vm, "127.0.0.1", 7777));
}

TEST_CASE("scan: the talk's three words come back") {
    const Network network;
    const Server server(network.vm, {"--ports", "7,77,777"});
    const auto say = [&](const std::string& word, const std::string& to) {
        return run_ok(network.host, {"sh", "-c", "echo '" + word + "' | nc -N " + to});
    };
    CHECK(say("Hip", "-4 192.0.2.2 7") == "Hip\n");
    CHECK(say("hip", "-4 192.0.2.2 77") == "hip\n");
    CHECK(say("hooray!", "-4 192.0.2.2 777") == "hooray!\n");
    CHECK(say("Hip", "-6 2001:db8::2 7") == "Hip\n");
    CHECK(run_ok(network.host, {"sh", "-c", "echo ncat | ncat 192.0.2.2 77"}) == "ncat\n");
}

TEST_CASE("scan: every port but one is open, and every one of them echoes" * doctest::test_suite("alone")) {
    const Network network;
    const Server server(network.vm, {"--ports", "1-65535,!22", "--allow-ephemeral"});
    MESSAGE("a start with 65,534 ports: ", server.cpu_time().count(), " ms of CPU time");
    CHECK(server.cpu_time() < promised);

    CHECK(scan(network.host, Network::vm_ip4, "1-65535") == "1-21,23-65535");
    int failed = 0;
    for (std::uint32_t port = 1; port <= 65535; ++port)
        if (port != 22 &&
            !echoes(network.host, Network::vm_ip4, static_cast<std::uint16_t>(port), std::to_string(port)))
            ++failed;
    CHECK(failed == 0);
    CHECK(try_connect(network.host, Network::vm_ip4, 22) == ECONNREFUSED);
}

TEST_CASE("scan: a reload replaces every port in time" * doctest::test_suite("alone")) {
    const Network network;
    const TempFile file("1-65535,!22\n");
    Server server(network.vm, {"--ports-file", file.path(), "--allow-ephemeral"});
    struct Step {
        std::string list;
        std::string line;
    };
    const std::vector<Step> steps = {
        {"1-65535,!77", "added 22; removed 77; 65534 ports open"},
        {"1-32767", "added 77; removed 32768-65535; 32767 ports open"},
        {"32768-65535", "added 32768-65535; removed 1-32767; 32768 ports open"},
        {"1-32767", "added 1-32767; removed 32768-65535; 32767 ports open"},
        {"1-65535,!22", "added 32768-65535; removed 22; 65534 ports open"},
    };
    for (const auto& step : steps) {
        file.write(step.list);
        const auto before = server.cpu_time();
        CHECK(server.reload().find(step.line) != std::string::npos);
        const auto cost = server.cpu_time() - before;
        MESSAGE("reload to ", step.list, ": ", cost.count(), " ms of CPU time");
        CHECK(cost < promised);
    }
    file.write("1-32767");
    server.reload();
    CHECK(scan(network.host, Network::vm_ip4, "32700-32800") == "32700-32767");
}

TEST_CASE("scan: a map update by hand opens a port, a deletion closes it, and the dump shows both") {
    const Network network;
    const Server server(network.vm, {"--ports", "77,777"});
    const BpfObjects objects(network.vm);
    const auto& map = objects.maps.at("echo_ports");
    CHECK(try_connect(network.host, Network::vm_ip4, 7) == ECONNREFUSED);

    // The talk's own command.
    run_ok(network.vm, open_by_bpftool({"id", map}, 7));
    CHECK(echoes(network.host, Network::vm_ip4, 7));
    CHECK(run_ok(network.vm, {"bpftool", "map", "dump", "id", map}).find(dump_of(7)) != std::string::npos);

    run_ok(network.vm, close_by_bpftool({"id", map}, 77));
    CHECK(scan(network.host, Network::vm_ip4, "1-1000") == "7,777");
}

TEST_CASE("scan: maps and program have the talk's names and shapes") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const BpfObjects objects(netns);
    const auto show = [&](const char* kind, const std::string& id) {
        return run_ok(netns, {"bpftool", kind, "show", "id", id});
    };
    CHECK(show("prog", objects.program).find("sk_lookup  name echo_dispatch ") != std::string::npos);
    const auto ports = show("map", objects.maps.at("echo_ports"));
    CHECK(ports.find("hash  name echo_ports  flags 0x0") != std::string::npos);
    CHECK(ports.find("key 2B  value 1B  max_entries 65536") != std::string::npos);
    const auto socket = show("map", objects.maps.at("echo_socket"));
    CHECK(socket.find("sockmap  name echo_socket  flags 0x0") != std::string::npos);
    CHECK(socket.find("key 4B  value 8B  max_entries 1 ") != std::string::npos);
}

}  // namespace echo_server
