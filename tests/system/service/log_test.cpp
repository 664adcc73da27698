// SPDX-License-Identifier: BSD-2-Clause
// The log may go anywhere: no reader may stall, stop or end the server.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <climits>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"
#include "support/service.h"

namespace echo_server {

namespace {

void require(bool done) {
    if (!done) std::abort();
}

/// Puts the program into the background of a terminal of its own. The terminal stops background processes that write.
void go_to_background_of_a_terminal() {
    const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    require(terminal >= 0 && ::grantpt(terminal) == 0 && ::unlockpt(terminal) == 0 && ::setsid() > 0);
    const int shell = ::open(::ptsname(terminal), O_RDWR | O_CLOEXEC);
    termios settings{};
    require(shell >= 0 && ::tcgetattr(shell, &settings) == 0);
    settings.c_lflag |= TOSTOP;
    require(::tcsetattr(shell, TCSANOW, &settings) == 0);
    // This process plays the shell: it stays in the foreground, and waits.
    go_on_in_child();
    require(::setpgid(0, 0) == 0);
    require(::dup2(shell, STDOUT_FILENO) >= 0 && ::dup2(shell, STDERR_FILENO) >= 0);
}

}  // namespace

TEST_CASE("log: a line longer than a pipe has room for is cut off, and blocks nobody") {
    const Netns netns;
    const std::string long_name(100'000, 'x');
    for (const std::string flag : {"--ports-file", "--ports", "--user"}) {
        CAPTURE(flag);
        const auto command =
            echo_server(flag == "--user" ? Command{"--ports", "7", flag, long_name} : Command{flag, long_name});
        Process process(netns, command);
        REQUIRE(ends(process));
        CHECK(process.wait() == (flag == "--ports" ? 2 : 1));
        const auto& output = process.output();
        CHECK(output.size() <= PIPE_BUF);
        CHECK(output.starts_with("echo-server: "));
        CHECK(count(output, "\n") == 1);
        const bool quoted_in_part = flag != "--ports-file";  // an error shows only the beginning of a wrong value
        CHECK(output.ends_with("xxx... (cut off)\n") != quoted_in_part);
    }
}

TEST_CASE("log: in the journal a line has its priority, and the start is one line") {
    const Netns netns;
    const TempFile file("7,77\n");
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77, "other");
    const auto as_service = [](int stream) {
        struct stat status{};
        require(::fstat(stream, &status) == 0);
        ::setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino).c_str(), 1);
    };
    Process server(netns, echo_server({"--ports-file", file.path(), "--shadow-listeners"}),
                   [&] { as_service(STDERR_FILENO); });
    CHECK(server.next_line().starts_with("<4>port 77 (system-tests) is already served by "));
    CHECK(server.next_line() == "version " ECHO_SERVER_VERSION
                                ", 2 TCP ports open: 7,77; socket 127.0.0.1:7777, user nobody");
    file.write("x\n");
    server.signal(SIGHUP);
    CHECK(server.next_line().starts_with("<3>" + file.path() + ":1: "));
    // The variable is inherited by programs whose output goes elsewhere.
    const auto elsewhere = run(netns, echo_server({"--ports", "77"}), [] { ::setenv("JOURNAL_STREAM", "1:2", 1); });
    CHECK(elsewhere.output.starts_with("echo-server: "));
}

TEST_CASE("log: a path can't fake a line, control the terminal, or send a message to systemd") {
    const Netns netns;
    Systemd systemd(netns);
    const TempFile beside("");
    const auto path = beside.path() + "\nREADY=1\nMAINPID=1\x1b[2J\u00e4";
    const auto shown = beside.path() + R"(\x0aREADY=1\x0aMAINPID=1\x1b[2J\xc3\xa4)";
    const auto write = [&](std::string_view text) { std::ofstream(path) << text; };
    write("7\n");
    Server server(netns, {"--ports-file", path}, Systemd::start);
    CHECK(server.output().find("\n  reload     edit " + shown + ", then ") != std::string::npos);
    systemd.wait_for("READY=1\nSTATUS=1 TCP port open: 7");
    write("seven\n");
    CHECK(server.reload().starts_with("echo-server: " + shown + ":1: 'seven'"));
    systemd.wait_for("RELOADING=1");
    const auto message = systemd.receive();
    CHECK(message.starts_with("READY=1\nSTATUS=1 TCP port open: 7; the last reload failed: " + shown + ":1: 'seven'"));
    CHECK(count(message, "\n") == 1);
    std::filesystem::remove(path);
}

TEST_CASE("log: a reader that stalls does not block messages of libbpf") {
    const Netns netns;
    const Process server(netns, echo_server({"--ports", "7", "--verbose"}), [] {
        // The pipe has the smallest size, and is full.
        require(::fcntl(STDOUT_FILENO, F_SETPIPE_SZ, 4096) == 4096);
        require(::write(STDOUT_FILENO, std::string(4096, '.').data(), 4096) == 4096);
    });
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("log: a terminal that nobody reads stalls neither clients nor a stop") {
    const Netns netns;
    const Fd reader(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE((::grantpt(reader.get()) == 0 && ::unlockpt(reader.get()) == 0));
    const Fd terminal(::open(::ptsname(reader.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    REQUIRE(terminal);
    Process server(netns, echo_server({"--ports", "7", "--user", "root", "--verbose"}), [&] {
        require(::dup2(terminal.get(), STDOUT_FILENO) >= 0 && ::dup2(terminal.get(), STDERR_FILENO) >= 0);
    });
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));

    constexpr int more_lines_than_it_holds = 2000;
    int served = 0;
    while (served < more_lines_than_it_holds && echoes(netns, "127.0.0.1", 7)) ++served;
    CHECK(served == more_lines_than_it_holds);
    CHECK((::fcntl(terminal.get(), F_GETFL) & O_NONBLOCK) == 0);  // other users of the terminal still wait
    server.signal(SIGTERM);
    REQUIRE(ends(server));
    CHECK(server.wait() == 0);
}

TEST_CASE("log: a file that has reached its limit of size loses lines, and the server goes on") {
    const Netns netns;
    const TempFile log("");
    Process server(netns, echo_server({"--ports", "7", "--user", "root", "--verbose"}), [&] {
        const int file = ::open(log.path().c_str(), O_WRONLY);
        require(file >= 0 && ::dup2(file, STDOUT_FILENO) >= 0 && ::dup2(file, STDERR_FILENO) >= 0);
    });
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));

    // Set while it runs, because sanitizers and coverage write files of their own at the start.
    const rlimit limit{.rlim_cur = 0, .rlim_max = 0};
    REQUIRE(::prlimit(server.pid(), RLIMIT_FSIZE, &limit, nullptr) == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
    const auto size = std::filesystem::file_size(log.path());
    CHECK(size > 0);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK(std::filesystem::file_size(log.path()) == size);
}

TEST_CASE("log: in the background of a terminal with 'stty tostop' the server goes on") {
    const Netns netns;
    const Process shell(netns, echo_server({"--ports", "7", "--user", "root", "--verbose"}),
                        go_to_background_of_a_terminal);
    REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == 0; }));
    for (int i = 0; i < 3; ++i) CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
