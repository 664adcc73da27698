// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server probe' with the status of the server.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <string>

#include "base/os.h"
#include "support/peer.h"
#include "support/server.h"

namespace echo_server {

namespace {

// A server of 7 and 1000-1010, without 1003, where another program listens; and another echo server on 8.
struct Scene {
    Netns netns;
    Peer other{netns, 1003, [](Fd& client) { receive_from(client, 4096); }};
    Peer other_echo{netns, 8, [](Fd& client) { echo_back(client); }};
    Server server{netns, {"--ports", "7,1000-1010"}};

    // Exit code, and the text after its first line.
    [[nodiscard]] std::string probe(const Command& flags, const std::function<void()>& in_child = {}) const {
        Command arguments{"probe", "127.0.0.1", "--retries", "0"};
        arguments.insert(arguments.end(), flags.begin(), flags.end());
        const auto [code, output] = run(netns, echo_server(arguments), in_child);
        return std::to_string(code) + output.substr(output.find('\n'));
    }
};

constexpr auto some_of_each = "7,8,1003,2000";
constexpr auto read_of_each =
    "1\n"
    "  echoed       1 port, but not by this server on this port: 8\n"
    "  echoed       1 port, through: 7\n"
    "  cut          1 port, closed after 0 of 4096 bytes, left out by the server: another program listens: 1003\n"
    "  refused      1 port, not open at the server: 2000\n";
constexpr auto figures_are_sums = "The server's side counts all its clients since its start, or since SIGUSR2.\n";

}  // namespace

TEST_CASE("probe: with --status-command each port has a reading, and older figures do not matter") {
    const Scene scene;
    const auto status = echo_server({"status"}).front() + " status --json";
    // The ports that the server has open.
    CHECK(scene.probe({"--status-command", status}) ==
          "0\n"
          "  echoed       11 ports, through: 7,1000-1002,1004-1010\n");
    CHECK(scene.probe({"--status-command", status, "--ports", some_of_each}) == read_of_each);
    // On 7 the server has figures, but not of this probe.
    run_ok(scene.netns, {"nft", "-f",
                         TempFile(R"(
        table ip elsewhere {
            chain out {
                type nat hook output priority -100;
                tcp dport 7 redirect to :8
            }
        })")
                             .path()});
    CHECK(scene.probe({"--status-command", status, "--ports", "7,1000", "--expect", "7,1000"}) ==
          "1\n"
          "  echoed       1 port, but not by this server on this port: 7\n"
          "  echoed       1 port, through: 1000\n"
          "expected, and not echoed: 7\n");
}

TEST_CASE("probe: with --status the figures are those of a document, also from standard input") {
    const Scene scene;
    CHECK(scene.probe({"--ports", "7"}) == "0\n  echoed       1 port: 7\n");
    REQUIRE(eventually([&] { return status_shows(scene.netns, "4096 received"); }));
    const TempFile status(run_ok(scene.netns, echo_server({"status", "--json"})));
    CHECK(scene.probe({"--status", status.path(), "--ports", some_of_each}) ==
          std::string(read_of_each) + figures_are_sums);
    const auto from_file = [&] {
        const Fd file(::open(status.path().c_str(), O_RDONLY | O_CLOEXEC));
        if (!file || ::dup2(file.get(), STDIN_FILENO) < 0) std::abort();
    };
    CHECK(scene.probe({"--status", "-", "--ports", "7"}, from_file) ==
          std::string("0\n  echoed       1 port, through: 7\n") + figures_are_sums);
}

}  // namespace echo_server
