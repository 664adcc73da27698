// SPDX-License-Identifier: BSD-2-Clause
// Parent processes that leave standard input, output or error closed.
#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("standard streams: whichever are closed, each client gets its own bytes and no line of the log") {
    constexpr std::size_t much = 400'000;
    const Netns netns;
    for (unsigned closed = 0; closed < 8; ++closed) {
        CAPTURE(closed);
        const TempFile file("7\n");
        Process server(netns, echo_server({"--ports-file", file.path(), "--threads", "1", "--verbose"}),
                       [&] { close_standard_streams(closed); });
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));
        Client first(netns, "127.0.0.1", 7);
        Client second(netns, "127.0.0.1", 7);
        const auto talk = [&] {
            for (const std::size_t size : {std::size_t{5}, much, std::size_t{5}, much}) {
                first.send(bytes_of('1', size));
                second.send(bytes_of('2', size));
                REQUIRE((first.receive(size) == bytes_of('1', size)));
                REQUIRE((second.receive(size) == bytes_of('2', size)));
            }
        };
        talk();
        // A refused reload, and, once its line was written, an accepted reload.
        const auto read = server.bytes_read();
        file.write("x\n");
        server.signal(SIGHUP);
        if ((closed & 1U << STDERR_FILENO) == 0) server.wait_for("is not allowed here");
        REQUIRE(eventually([&] { return server.bytes_read() > read; }));
        file.write("7,9\n");
        REQUIRE(eventually([&] {
            server.signal(SIGHUP);
            return try_connect(netns, "127.0.0.1", 9) == 0;
        }));
        talk();
        for (auto* client : {&first, &second}) {
            client->shutdown_write();
            CHECK(client->at_end());
        }
        CHECK(echoes(netns, "::1", 7, bytes_of('3', much)));
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
        const auto says = [&](const char* text) { return server.output().find(text) != std::string::npos; };
        CHECK(says("\nstopped\n") == ((closed & 1U << STDOUT_FILENO) == 0));
        CHECK(says("is not allowed here") == ((closed & 1U << STDERR_FILENO) == 0));
    }
}

TEST_CASE("standard streams: with any of them closed, status and wrong usage end as usual") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    for (unsigned closed = 0; closed < 8; ++closed) {
        CAPTURE(closed);
        const auto status = run(netns, echo_server({"status"}), [&] { close_standard_streams(closed); });
        CHECK(status.code == 0);
        CHECK((status.output.find("  ports        1 open: 7\n") != std::string::npos) ==
              ((closed & 1U << STDOUT_FILENO) == 0));
        CHECK(run(netns, echo_server({"--nonsense"}), [&] { close_standard_streams(closed); }).code == 2);
    }
}

}  // namespace echo_server
