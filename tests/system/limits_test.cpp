// SPDX-License-Identifier: BSD-2-Clause
// Accepting while the kernel is short of something.
#include <doctest/doctest.h>

#include <list>
#include <string>
#include <vector>

#include "child.h"
#include "client.h"
#include "server.h"

namespace {

using namespace std::chrono_literals;

std::size_t count(const std::string& text, const std::string& piece) {
    std::size_t found = 0;
    for (auto at = text.find(piece); at != std::string::npos; at = text.find(piece, at + 1)) ++found;
    return found;
}

}  // namespace

TEST_CASE("limits: with 64 descriptors and 500 clients it waits without spinning, and serves all in the end") {
    const Netns netns;
    Server server(netns, {"--ports", "7"}, [] { limit_descriptors(64); });
    std::list<Client> clients;
    for (int i = 0; i < 500; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    const auto complaint = server.wait_for("accepting a connection: ");
    CHECK(complaint.find("Too many open files; ") != std::string::npos);
    CHECK(complaint.find("are open, newcomers wait; a higher 'ulimit -n' lets more in") != std::string::npos);

    // From one complaint to the next but one it takes at least two seconds, and next to no CPU.
    const auto cpu = server.cpu_time();
    const auto start = std::chrono::steady_clock::now();
    server.wait_for("accepting a connection: ");
    server.wait_for("accepting a connection: ");
    CHECK(std::chrono::steady_clock::now() - start > 1900ms);
    CHECK(server.cpu_time() - cpu < 100ms);

    int served = 0;
    while (!clients.empty()) {
        if (clients.front().receive(1) == "x") ++served;
        clients.pop_front();
    }
    CHECK(served == 500);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("limits: no error of accept() ends the loop or makes it spin") {
    const Netns netns;
    struct Case {
        std::string error;
        int complaints;
    };
    const std::vector<Case> cases = {
        {"EMFILE", 1}, {"ENFILE", 1}, {"ENOBUFS", 1}, {"ENOMEM", 1}, {"EPERM", 1}, {"ECONNABORTED", 0},
    };
    for (const auto& one : cases) {
        CAPTURE(one.error);
        // The first three calls fail.
        Process server(netns, {"env", std::string("LD_PRELOAD=") + ACCEPT_FAULT, "ACCEPT_FAULT=" + one.error,
                               "ASAN_OPTIONS=verify_asan_link_order=0", ECHO_SERVER, "--ports", "7"});
        server.wait_for("  stop ");
        const auto cpu = server.cpu_time();
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(server.cpu_time() - cpu < 100ms);
        CHECK(count(server.output(), "accepting a connection: ") == static_cast<std::size_t>(one.complaints));
    }
}
