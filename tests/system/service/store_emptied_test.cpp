// SPDX-License-Identifier: BSD-2-Clause
// When the server empties its descriptor store of systemd: no port stays open that nobody serves.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/service.h"

namespace echo_server {

TEST_CASE("store: once systemd has closed its descriptors, nothing is left") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    const auto client = new_client(netns, 7);
    service.systemd.stored.clear();
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED; }));
    CHECK(eventually([&] { return nothing_left(netns); }));
}

TEST_CASE("store: a start that fails leaves no port open that nobody serves") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    SUBCASE("without its ports file") {
        CHECK(service.fail_to_start({"--ports-file", "/nowhere"}).find("/nowhere") != std::string::npos);
    }
    SUBCASE("without enough descriptors") {
        const auto output = service.fail_to_start({"--ports", "7", "--max-connections", "1000000000"});
        CHECK(output.find("descriptors") != std::string::npos);
    }
    CHECK(service.systemd.stored.empty());
    CHECK(eventually([&] { return nothing_left(netns); }));
    service.start({"--ports", "7"});
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("store: a server whose program was detached ends, and leaves the store empty") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    detach_program(netns);
    service.process->signal(SIGHUP);
    CHECK(service.process->wait() == 1);
    service.systemd.wait_for("STATUS=Failed: reload: the BPF program was detached");
    CHECK(service.systemd.stored.empty());
}

TEST_CASE("store: a server that is replaced while it drains for a restart empties the store") {
    const Netns netns;
    const TempFile file("7\n");
    Service service(netns);
    auto idle = service.start_with_idle_client();
    // The drain begins when the new server has duplicated the socket, and waits for its ports file.
    std::ofstream(file.path() + ".hang").close();
    Process new_server(netns, echo_server({"--ports-file", file.path(), "--replace"}), [&] { hang_at(file.path()); });
    REQUIRE(eventually([&] { return std::filesystem::exists(file.path() + ".hangs"); }));
    service.process->signal(SIGTERM);
    service.process->wait_for("stopping");
    const auto third = run(netns, echo_server({"--ports", "7", "--replace"}));
    CHECK(third.output.find("it has closed its listening socket, because it drains; try again") != std::string::npos);
    std::filesystem::remove(file.path() + ".hang");
    new_server.wait_for("  stop ");
    std::filesystem::remove(file.path() + ".hangs");
    service.process->wait_for("replaced: another process serves");
    service.process->signal(SIGTERM);
    service.systemd.wait_for("STATUS=Replaced");
    CHECK(service.systemd.stored.empty());
    CHECK(count_links(netns) == 1);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("store: a server that is replaced empties the store") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    const Server new_server(netns, {"--ports", "7", "--replace"});
    service.systemd.wait_for("STATUS=Replaced");
    CHECK(service.systemd.stored.empty());
    CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
