// SPDX-License-Identifier: BSD-2-Clause
// Changes to the ports file while the server runs. Wrong lists are in reload_test.cpp.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <string>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

namespace fs = std::filesystem;

TEST_CASE("ports file: a new file that is renamed over it is read") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()});
    for (int i = 0; i < 100; ++i) {
        const TempFile next(fmt::format("7,{}\n", 1000 + i));
        fs::rename(next.path(), file.path());
        REQUIRE(server.reload() == fmt::format("reloaded {}: added {}; removed {}; 2 ports open", file.path(), 1000 + i,
                                               i == 0 ? "none" : std::to_string(999 + i)));
    }
    CHECK(echoes(netns, "127.0.0.1", 1099));
    CHECK(try_connect(netns, "127.0.0.1", 1098) == ECONNREFUSED);
}

TEST_CASE("ports file: a file that was cut off in the middle of a line changes nothing") {
    const Netns netns;
    const TempFile file("7\n1000-2000,!1500\n");
    Server server(netns, {"--ports-file", file.path()});
    for (const std::string rest : {"", "7\n1000-", "7\n1000-2000,", "7\n1000-2000,!"}) {
        CAPTURE(rest);
        file.write(rest);
        CHECK(server.reload().ends_with("; the ports stay as they are"));
        CHECK(status_shows(netns, "  1001 open: 7,1000-1499,1501-2000\n"));
    }
}

TEST_CASE("ports file: a file that changes while it is read changes nothing") {
    const Netns netns;
    const TempFile file("7\n");
    // After the start, somebody adds a line during each read.
    Server server(netns, {"--user", "root", "--ports-file", file.path()}, [&] { append_while_reading(file.path()); });
    for (int i = 0; i < 3; ++i) {
        CHECK(server.reload() ==
              fmt::format("echo-server: reading ports file {}: it changed while it was read: try again once it is "
                          "complete; the ports stay as they are",
                          file.path()));
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
    }
}

TEST_CASE("ports file: a file of 100 MiB is refused at once, whatever is in it") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()});
    const auto refusal = fmt::format("echo-server: reading ports file {}: it is larger than 4 MiB", file.path());
    const auto check = [&] {
        fs::resize_file(file.path(), 100 << 20);
        const auto read = server.bytes_read();
        CHECK(server.reload() == refusal + "; the ports stay as they are");
        CHECK(server.bytes_read() - read < 5 << 20);
        CHECK(echoes(netns, "127.0.0.1", 7));
        const auto [code, output] = run(netns, echo_server({"--ports-file", file.path()}));
        CHECK(code == 1);
    };
    check();
    std::string text;
    while (text.size() < (100U << 20U)) text += "7 # and so on, and so on, and so on, and so on\n";
    file.write(text);
    check();
#ifdef NDEBUG  // sanitizers keep much more
    CHECK(server.status_kb("VmHWM") < 32 * 1024);
#endif
}

TEST_CASE("ports file: behind a link nothing but a regular file is read, and a FIFO does not make it wait") {
    const Netns netns;
    const TempFile link("");
    const auto fifo = link.path() + ".fifo";
    REQUIRE(::mkfifo(fifo.c_str(), 0666) == 0);
    fs::remove(link.path());
    fs::create_symlink(fifo, link.path());
    const auto [code, output] = run(netns, echo_server({"--ports-file", link.path()}));
    CHECK(code == 1);
    CHECK(output ==
          fmt::format("echo-server: reading ports file {}: it is not a regular file, so it can't be read again on "
                      "SIGHUP\n",
                      link.path()));
    fs::remove(fifo);
}

}  // namespace echo_server
