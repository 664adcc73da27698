// SPDX-License-Identifier: BSD-2-Clause
// SIGHUP, and everything that it must not disturb.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/port_key.h"
#include "support/server.h"
#include "support/storm.h"

namespace echo_server {

using namespace std::chrono_literals;

TEST_CASE("reload: applies the difference, and logs it") {
    const Netns netns;
    const TempFile file("7, 1000-1010  # a range\n");
    Server server(netns, {"--ports", "77", "--ports-file", file.path()});
    Client client(netns, "127.0.0.1", 7);
    const BpfObjects before(netns);

    file.write("8\n1005-1020,!1007\n");
    CHECK(server.reload() ==
          fmt::format("reloaded {}: added 8,1011-1020; removed 7,1000-1004,1007; 17 ports open", file.path()));
    CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
    CHECK(try_connect(netns, "::1", 1007) == ECONNREFUSED);
    for (const std::uint16_t port : std::initializer_list<std::uint16_t>{8, 77, 1005, 1020})
        CHECK(echoes(netns, "::1", port));
    CHECK(server.reload() == fmt::format("reloaded {}: nothing changed; 17 ports open", file.path()));

    // An open connection stays, even on a port that is closed now. Program, maps and link are the same.
    client.send("still here");
    CHECK(client.receive(10) == "still here");
    const BpfObjects after(netns);
    CHECK(after.link == before.link);
    CHECK(after.program == before.program);
    CHECK(after.maps == before.maps);
}

TEST_CASE("reload: the ports are as the list again, whatever was changed in the map by hand") {
    const Netns netns;
    const TempFile file("7,77\n");
    Server server(netns, {"--ports-file", file.path()});
    const auto map = BpfObjects(netns).maps.at("echo_ports");
    run_ok(netns, open_by_bpftool({"id", map}, 9));
    run_ok(netns, close_by_bpftool({"id", map}, 7));
    CHECK(server.reload() == fmt::format("reloaded {}: added 7; removed 9; 2 ports open", file.path()));
}

TEST_CASE("reload: a file that is not a port list leaves the ports as they are") {
    const Netns netns;
    const TempFile file("7\n");
    const auto& path = file.path();
    Server server(netns, {"--ports-file", path});
    const auto refused = [&](const std::string& why) {
        CHECK(server.reload() == fmt::format("echo-server: {}; the ports stay as they are", why));
        CHECK(echoes(netns, "127.0.0.1", 7));
    };
    const std::string allowed =
        "is not allowed here: write ports (7), ranges (1000-2000) and exclusions (!22) from 1 to 65535, with commas "
        "between them";

    file.write("8\n9\nten\n");
    refused(fmt::format("{}:3: 'ten' {}", path, allowed));
    file.write(std::string_view("\0\1\2", 3));
    refused(fmt::format(R"({}:1: '\x00\x01\x02' {})", path, allowed));
    file.write("");
    refused(fmt::format("reading ports file {}: it lists no ports; write at least one, such as 7", path));
    file.write("8,!8\n");
    refused(
        "the port list leaves no port to open: its exclusions (!22) remove all ports; exclude fewer, or list others");
    file.write("8\n");
    REQUIRE(::chmod(path.c_str(), 0) == 0);
    refused(fmt::format(
        "reading ports file {}: Permission denied for user nobody: let it read the file (chmod a+r, and a+x on its "
        "directories), or choose another user by --user",
        path));
    std::filesystem::remove(path);
    refused(fmt::format("reading ports file {}: No such file or directory", path));
    std::filesystem::create_directory(path);
    refused(fmt::format("reading ports file {}: Is a directory", path));
    std::filesystem::remove(path);
    REQUIRE(::mkfifo(path.c_str(), 0644) == 0);
    refused(fmt::format("reading ports file {}: it is not a regular file, so it can't be read again on SIGHUP", path));

    std::filesystem::remove(path);
    file.write("7,8\n");
    CHECK(server.reload() == fmt::format("reloaded {}: added 8; removed none; 2 ports open", path));
}

TEST_CASE("reload: out of memory in the kernel, the ports stay and the server goes on") {
    const Netns netns;
    const TempFile file("7\n");
    // Reading echo_ports fails from the second time on.
    Server server(netns, {"--ports-file", file.path()}, [] { fail_bpf(BPF_MAP_LOOKUP_BATCH, after(1)); });
    file.write("8\n");
    CHECK(server.reload() ==
          "echo-server: reading the map echo_ports: Cannot allocate memory; the ports stay as they are");
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("reload: without a ports file there is nothing to re-read") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    CHECK(server.reload() ==
          "echo-server: reload: there is nothing to re-read without --ports-file; the ports stay as they are");
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("reload: a ports file that hangs holds up neither clients nor a stop") {
    const Netns netns;
    const TempFile file("7\n");
    const auto flag = file.path() + ".hang";
    Server server(netns, {"--ports-file", file.path(), "--threads", "1"}, [&] { hang_for_an_hour_at(file.path()); });
    const auto hang_at_reload = [&] {
        std::ofstream(flag).close();
        server.signal(SIGHUP);
        CHECK(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
    };
    file.write("8\n");
    hang_at_reload();
    for (int i = 0; i < 10; ++i) CHECK(echoes(netns, "127.0.0.1", 7));
    std::filesystem::remove(flag);
    CHECK(server.next_line() == fmt::format("reloaded {}: added 8; removed 7; 1 port open", file.path()));

    hang_at_reload();
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    std::filesystem::remove(flag);
    CHECK(server.output().ends_with("\nstopped\n"));
}

TEST_CASE("reload: a start whose ports file hangs can be stopped") {
    const Netns netns;
    const TempFile file("7\n");
    const auto flag = file.path() + ".hang";
    std::ofstream(flag).close();
    Process server(netns, echo_server({"--ports-file", file.path()}), [&] { hang_at(file.path()); });
    CHECK(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
    CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
    server.signal(SIGTERM);
    const bool ended = ends(server);
    std::filesystem::remove(flag);
    CHECK(ended);
    CHECK(server.wait() == 1);
    CHECK(server.output() == "echo-server: stopped by a signal before the start was complete\n");
}

TEST_CASE("reload: a SIGHUP that finds the program detached ends the server, and the log says why") {
    const Netns netns;
    const TempFile file("7\n");
    for (const bool with_file : {true, false}) {
        Server server(netns, with_file ? Command{"--ports-file", file.path()} : Command{"--ports", "7"});
        detach_program(netns);
        CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
        server.signal(SIGHUP);
        CHECK(server.wait() == 1);
        CHECK(server.output().ends_with(
            "\necho-server: reload: the BPF program was detached from the network namespace (for example by 'bpftool "
            "link detach'): the ports are closed. The server ends, so that it can be started again\n"));
    }
}

TEST_CASE("reload: a SIGHUP that finds the listener destroyed ends the server, even while it accepts nobody") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--max-connections", "1"});
    const Client held = connected(netns, 7);
    const Client new_client(netns, "127.0.0.1", 7);
    server.wait_for("new connections wait");
    run_ok(netns, {"ss", "-K", "-tl", "sport = 7777"});
    server.signal(SIGHUP);
    REQUIRE(ends(server));
    CHECK(server.wait() == 1);
    CHECK(server.output().ends_with(
        "\necho-server: reload: the listening socket was destroyed from outside (for example by 'ss -K'): the ports "
        "are closed. The server ends, so that it can be started again\n"));
}

TEST_CASE("reload: any number of them costs no stream a byte") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--threads", "1"});
    Storm reloads([&] {
        server.signal(SIGHUP);
        std::this_thread::sleep_for(50us);
    });
    Client client(netns, "127.0.0.1", 7);
    const std::string data(1U << 20U, 's');
    int identical = 0;
    for (int i = 0; i < 300; ++i) {
        client.send(data);
        if (client.receive(data.size()) == data) ++identical;
    }
    reloads.stop();
    CHECK(client.error() == 0);
    CHECK(identical == 300);
}

TEST_CASE("reload: a storm of them leaves time for clients, and for a stop" * doctest::test_suite("alone")) {
    const Netns netns;
    const TempFile file("1-65535,!7777\n");
    Server server(netns, {"--ports-file", file.path(), "--threads", "1", "--allow-ephemeral"});
    const auto time_of_100_clients = [&] {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 100; ++i) CHECK(echoes(netns, i % 2 == 0 ? "127.0.0.1" : "::1", 7));
        return std::chrono::steady_clock::now() - start;
    };
    const auto calm = time_of_100_clients();
    Storm storm([&] { ::kill(server.pid(), SIGHUP); });
    // Reloads of 65,534 ports alternate with clients; each reload takes as long as a hundred clients.
    CHECK(time_of_100_clients() < 200 * calm);
    file.write("7\n");
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED; }));
    server.signal(SIGTERM);
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED; }));
    storm.stop();  // first, because after the wait another process may have the number
    CHECK(server.wait() == 0);
    MESSAGE("SIGHUPs sent: ", storm.times());
}

TEST_CASE("reload: a thousand of them cost no client of a port that stays its connection") {
    const Network network;
    // A reload that closed all of these ports for a moment would be caught.
    const TempFile file("1-5000\n");
    Server server(network.vm, {"--ports-file", file.path()});
    std::atomic<int> served = 0;
    std::atomic<int> failed = 0;
    const auto connect_to = [&](const std::string& address) {
        for (const std::uint16_t port : std::initializer_list<std::uint16_t>{7, 77, 777})
            ++(echoes(network.host, address, port, "steady") ? served : failed);
    };
    Storm ip4([&] { connect_to(Network::vm_ip4); });
    Storm ip6([&] { connect_to(Network::vm_ip6); });

    int reloaded = 0;
    for (int i = 0; i < 1000; ++i) {
        file.write(fmt::format("1-5000,{}-{}\n", 6000 + i, 6100 + i * 3));
        if (server.reload().starts_with("reloaded ")) ++reloaded;
    }
    ip4.stop();
    ip6.stop();
    MESSAGE("connections served meanwhile: ", served.load());
    CHECK(reloaded == 1000);
    CHECK(served > 500);
    CHECK(failed == 0);
}

}  // namespace echo_server
