// SPDX-License-Identifier: BSD-2-Clause
// SIGHUP has two meanings: the terminal of the start has closed, or somebody wants a reload.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>

#include "support/client.h"
#include "support/guard.h"
#include "support/server.h"
#include "support/skip.h"

namespace echo_server {
namespace {

/// A terminal in which a user types into a shell. The destructor closes it.
class Terminal {
 public:
    Terminal(const Netns& netns, const Command& shell) : shell_(netns, shell, [this] { become_session(); }) {}

    /// Types a line.
    void type(const std::string& line) const {
        const auto typed = line + "\n";
        REQUIRE(::write(master_.get(), typed.data(), typed.size()) == std::ssize(typed));
    }

    /// Closes it, and waits for the end of the shell. By then the shell has sent its signals.
    void close() {
        master_ = Fd();
        REQUIRE(ends(shell_));
    }
    void close_after_shell() {
        REQUIRE(ends(shell_));
        master_ = Fd();
    }

 private:
    static Fd make_master() {
        Fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
        REQUIRE((master && ::grantpt(master.get()) == 0 && ::unlockpt(master.get()) == 0));
        return master;
    }

    // In the shell, before it runs.
    void become_session() const {
        if (::setsid() < 0) std::abort();
        const int terminal = ::open(::ptsname(master_.get()), O_RDWR);  // becomes the controlling terminal
        for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
            if (::dup2(terminal, stream) < 0) std::abort();
    }

    Fd master_ = make_master();
    Process shell_;
};

/// A server that a shell has started by `command()`. The destructor kills it, and waits for its end: the next server in
/// this network namespace would find it, and refuse to start.
class TypedServer {
 public:
    TypedServer() = default;
    TypedServer(const TypedServer&) = delete;
    TypedServer& operator=(const TypedServer&) = delete;
    ~TypedServer() {
        if (!process_) return;
        ::kill(pid_, SIGKILL);
        CHECK(stops());
    }

    [[nodiscard]] std::string command() const {
        return fmt::format("{} >{} 2>&1", fmt::join(echo_server({"--ports-file", ports_.path()}), " "), log_.path());
    }

    [[nodiscard]] bool logs(std::string_view text) const {
        return eventually([&] { return log().find(text) != std::string::npos; });
    }

    /// Call it once, after the command was typed.
    void wait_for_start() {
        constexpr std::string_view before = " kill ";
        REQUIRE(logs(before));
        REQUIRE(eventually([&] { return log().back() == '\n'; }));
        pid_ = std::stoi(log().substr(log().find(before) + before.size()));
        kill_at_our_end(pid_);
        process_ = open_process(pid_, 0);
        REQUIRE(process_);
    }

    /// Sends it SIGHUP from another session; returns whether it reads the file again.
    [[nodiscard]] bool reloads_on_signal() const {
        ports_.write("8\n");
        REQUIRE(::kill(pid_, SIGHUP) == 0);
        return logs("added 8; removed 7");
    }

    /// Waits until it has answered each SIGHUP so far: SIGUSR1 is answered later.
    void wait_for_answers() const {
        REQUIRE(::kill(pid_, SIGUSR1) == 0);
        REQUIRE(logs("not reached"));
    }

    [[nodiscard]] bool stops() const {
        pollfd ended{.fd = process_.get(), .events = POLLIN, .revents = 0};
        return ::poll(&ended, 1, 1000 * time_limit.count()) == 1;
    }

    [[nodiscard]] std::string log() const {
        std::ifstream file(log_.path());
        return {std::istreambuf_iterator<char>(file), {}};
    }

 private:
    TempFile ports_{"7\n"};
    TempFile log_{""};
    pid_t pid_ = 0;
    Fd process_;
};

const Command bash{"bash", "--norc", "--noediting", "-i"};

constexpr std::string_view gone = "SIGHUP: the terminal in which the server was started is gone";

void check_that_it_stops(const Netns& netns, const Command& shell, const std::string& before,
                         const std::string& after) {
    CAPTURE(shell.front());
    CAPTURE(before);
    TypedServer server;
    Terminal terminal(netns, shell);
    terminal.type(before + server.command() + after);
    server.wait_for_start();
    terminal.close();
    CHECK(server.stops());
    CAPTURE(server.log());
    CHECK(count(server.log(), gone) == 1);
    CHECK(server.log().ends_with("stopped\n"));
}

}  // namespace

TEST_CASE("terminal: when it closes, a server that was started in it stops") {
    const Netns netns;
    check_that_it_stops(netns, {"sh", "-i"}, "", "");  // the kernel sends SIGHUP
    check_that_it_stops(netns, bash, "", "");          // bash does, and then the kernel
    check_that_it_stops(netns, bash, "", " &");        // bash does
}

TEST_CASE("terminal: a server stops if its shell passes SIGHUP on, ends, and the terminal closes then") {
    const Netns netns;
    TypedServer server;
    Terminal terminal(netns, {"bash", "--login", "--noprofile", "--noediting", "-i"});
    terminal.type("shopt -s huponexit; " + server.command() + " &");
    server.wait_for_start();
    terminal.type("exit");
    terminal.close_after_shell();
    CHECK(server.stops());
    CHECK(count(server.log(), gone) == 1);
}

TEST_CASE("terminal: when it closes, a server under a sudo that has made another terminal stops") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const TempFile sudoers("Defaults use_pty, !env_reset\nroot ALL=(ALL:ALL) ALL\n");
    const Command shell{"unshare", "--mount", "sh", "-c",
                        fmt::format("mount --bind {} /etc/sudoers; exec {}", sudoers.path(), fmt::join(bash, " "))};
    check_that_it_stops(netns, shell, "sudo ", "");
    check_that_it_stops(netns, shell, "sudo ", " &");
    check_that_it_stops(netns, shell, "sudo bash --norc --noediting -ic '", "'");
}

TEST_CASE("terminal: while it is open, SIGHUP is a reload, also from its own shell") {
    const Netns netns;
    TypedServer server;
    const Terminal terminal(netns, bash);
    terminal.type(server.command() + " &");
    server.wait_for_start();
    CHECK(server.reloads_on_signal());
    terminal.type("kill -HUP %1");
    CHECK(server.logs("nothing changed"));
    CHECK(count(server.log(), gone) == 0);
}

TEST_CASE("terminal: for a server that goes on without its terminal, SIGHUP is a reload") {
    const Netns netns;
    const auto reloads = [&](const Command& shell, const std::string& before, const std::string& after) {
        CAPTURE(before + after);
        TypedServer server;
        Terminal terminal(netns, shell);
        terminal.type(before + server.command() + after);
        server.wait_for_start();
        terminal.close();
        server.wait_for_answers();
        CHECK(server.reloads_on_signal());
        CAPTURE(server.log());
        CHECK(count(server.log(), "reloaded ") == 1);  // no SIGHUP of the shell was a reload
        CHECK(count(server.log(), gone) == 0);
    };
    reloads({"sh", "-i"}, "", " &");  // that shell sends no SIGHUP
    reloads(bash, "", " & disown");
    reloads(bash, "nohup ", " &");  // bash sends SIGHUP
}

TEST_CASE("terminal: a server in tmux outlives the terminal of tmux, and stops when tmux ends") {
    const Netns netns;
    TypedServer server;
    const auto tmux = fmt::format("TERM=xterm tmux -f /dev/null -S {} ", temporary_name());
    Terminal terminal(netns, bash);
    terminal.type(fmt::format("{} new-session '{}'", tmux, server.command()));
    server.wait_for_start();
    terminal.close();
    CHECK(server.reloads_on_signal());
    run_ok(netns, {"sh", "-c", tmux + "kill-server"});
    CHECK(server.stops());
    CHECK(count(server.log(), gone) == 1);
}

}  // namespace echo_server
