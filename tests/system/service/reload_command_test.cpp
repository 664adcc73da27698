// SPDX-License-Identifier: BSD-2-Clause
// 'echo-server reload' returns once the ports are as in the file, or says why they are not.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/capability.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/skip.h"

namespace echo_server {

namespace {

Command command(Command arguments = {}) {
    arguments.insert(arguments.begin(), "reload");
    return echo_server(arguments);
}

Command command(const Process& server) { return command({std::to_string(server.pid())}); }

// Replaces the file in one step, for a server that may read it at any moment.
void replace(const TempFile& file, const std::string& text) {
    const TempFile next(text);
    std::filesystem::rename(next.path(), file.path());
}

}  // namespace

TEST_CASE("reload command: each of 200 commands returns once the new port is open") {
    const Netns netns;
    const TempFile file("7\n");
    const Server server(netns, {"--ports-file", file.path()});
    int opened = 0;
    for (std::uint16_t port = 1000; port < 1200; ++port) {
        file.write(fmt::format("7,{}\n", port));
        const auto [code, output] = run(netns, port % 2 == 0 ? command() : command(server));
        if (code == 0 && try_connect(netns, "127.0.0.1", port) == 0) ++opened;
        CHECK(output == fmt::format("reloaded {}: added {}; removed {}; 2 ports open\n", file.path(), port,
                                    port == 1000 ? "none" : std::to_string(port - 1)));
    }
    CHECK(opened == 200);
}

TEST_CASE("reload command: two commands at once get an answer each, which covers both edits") {
    const Netns netns;
    const TempFile file("7\n");
    const Server server(netns, {"--ports-file", file.path()});
    const auto opens = [&](Process& command, std::uint16_t port) {
        CHECK(command.wait() == 0);
        CHECK(try_connect(netns, "127.0.0.1", port) == 0);
    };
    for (std::uint16_t port = 1000; port < 1100; port += 2) {
        replace(file, fmt::format("7,1000-{}\n", port));
        Process first(netns, command());
        replace(file, fmt::format("7,1000-{}\n", port + 1));
        Process second(netns, command());
        opens(second, port + 1);
        opens(first, port);
    }
}

TEST_CASE("reload command: a reload that fails has exit code 1, and the reason on standard error") {
    const Netns netns;
    const TempFile file("7\n");
    const auto fails = [&](const std::string& why) {
        const auto [code, output] = run(netns, command());
        CHECK(code == 1);
        CHECK(output == fmt::format("echo-server: {}; the ports stay as they are\n", why));
        CHECK(run(netns, {"sh", "-c", "$0 reload 2>/dev/null", ECHO_SERVER}).output.empty());
        CHECK(echoes(netns, "127.0.0.1", 7));
    };
    SUBCASE("the file is not a port list") {
        const Server server(netns, {"--ports-file", file.path()});
        file.write("8\nten\n");
        fails(
            fmt::format("{}:2: 'ten' is not allowed here: write ports (7), ranges (1000-2000) and exclusions (!22) "
                        "from 1 to 65535, with commas between them",
                        file.path()));
        CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
    }
    SUBCASE("a port is taken") {
        const Server server(netns, {"--ports-file", file.path(), "--user", "54322"});
        const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77, "other");
        file.write("7,77\n");
        fails(
            "port 77 is already served by another socket: leave it out, or pass --shadow-listeners to take its new "
            "connections ('sudo ss -tlnp' shows who listens)");
    }
    SUBCASE("the kernel has no memory") {
        const Server server(netns, {"--ports-file", file.path()}, [] { fail_bpf(BPF_MAP_LOOKUP_BATCH, after(1)); });
        fails("reading the map echo_ports: Cannot allocate memory");
    }
    SUBCASE("there is no file") {
        const Server server(netns, {"--ports", "7"});
        fails("reload: there is nothing to re-read without --ports-file");
    }
}

TEST_CASE("reload command: if the program was detached, the server ends, and the answer says why") {
    const Netns netns;
    Server server(netns, {"--ports", "7"});
    detach_program(netns);
    const auto [code, output] = run(netns, command());
    CHECK(code == 1);
    CHECK(output.starts_with("echo-server: reload: the BPF program was detached from the network namespace"));
    CHECK(server.wait() == 1);
}

#ifdef NDEBUG  // sanitizers have their own allocators, which end the process

TEST_CASE("reload command: a server without memory answers each command") {
    const Netns netns;
    const TempFile file("7\n");
    const TempFile shortage("");
    const Server server(netns, {"--ports-file", file.path()}, [&] { fail_memory(shortage.path()); });
    shortage.write("now");
    for (int i = 0; i < 10; ++i) {
        const auto [code, output] = run(netns, command());
        CHECK(code == 1);
        CHECK(output == "echo-server: reload: out of memory; some ports may differ from the file: reload again\n");
    }
    shortage.write("");
    CHECK(run(netns, command()).code == 0);
}
#endif

TEST_CASE("reload command: a server that is stopped does not answer, and the command fails after ten seconds") {
    const Netns netns;
    const TempFile file("7\n");
    const Server server(netns, {"--ports-file", file.path()});
    server.freeze();
    const auto [code, output] = run(netns, command(server));
    CHECK(code == 1);
    CHECK(output == fmt::format("echo-server: process {} does not answer in 10 s: it is stopped (its state in 'ps' is "
                                "T), or reading its ports file hangs; it may still reload later\n",
                                server.pid()));
    server.signal(SIGCONT);
    CHECK(run(netns, command(server)).code == 0);
}

TEST_CASE("reload command: a user can reload his own servers only") {
    const Netns netns;
    const TempFile file("7\n");
    const Server of_nobody(netns, {"--ports-file", file.path()});  // root has started it
    CHECK(run_as_nobody(netns, command()).code == 0);
    // No capability changes that.
    const auto [code, output] = run(netns, command(), [] { become_ordinary({CAP_KILL}); });
    CHECK(code == 1);
    CHECK(output == "echo-server: reloading this server: only root and the server's own user may do that\n");

    const Netns other;
    const Server own(other, {"--ports-file", file.path()}, [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(run(other, command(), [] { become_ordinary({}); }).code == 0);
    CHECK(run(other, command()).code == 0);
}

TEST_CASE("reload command: with several servers it needs a PID") {
    const Netns netns;
    const TempFile file("7\n");
    Server first(netns, {"--ports-file", file.path()});
    // A start without root does not notice the first server.
    const Server second(netns, {"--ports", "9", "--listen", "127.0.0.1:7778"},
                        [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    const auto [code, output] = run(netns, command());
    CHECK(code == 1);
    CHECK(output.starts_with(
        "echo-server: several processes accept reloads in this network namespace: choose one of them, "));
    CHECK(output.find(fmt::format("{} of nobody", first.pid())) != std::string::npos);
    CHECK(output.find(fmt::format("{} of {}", second.pid(), ordinary_user)) != std::string::npos);
    file.write("7,9\n");
    CHECK(run(netns, command(second)).output.find("nothing to re-read") != std::string::npos);
    CHECK(run(netns, command(first)).output.starts_with("reloaded "));
    CHECK(first.output().find("nothing changed") == std::string::npos);  // the first command got only its PID
}

TEST_CASE("reload command: without a server that could answer it is an error") {
    const Netns netns;
    const auto says = [&](const Command& command, const std::string& text) {
        const auto [code, output] = run(netns, command);
        CHECK(code == 1);
        CHECK(output == fmt::format("echo-server: {}\n", text));
    };
    says(command(), "no echo-server runs in this network namespace, or it is stopping: start one");
    says(
        command({"1"}),
        "process 1 is not an echo-server of this network namespace, or it is stopping: 'echo-server status' shows all");
}

TEST_CASE("reload command: it reaches the only server, also from another PID namespace") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const TempFile file("7\n");
    const Server server(netns, {"--ports-file", file.path()});
    auto in_a_container = command();
    in_a_container.insert(in_a_container.begin(), {"unshare", "--pid", "--fork", "--mount-proc"});
    file.write("7,9\n");
    CHECK(run_ok(netns, in_a_container) ==
          fmt::format("reloaded {}: added 9; removed none; 2 ports open\n", file.path()));
    const Server other(netns, {"--ports", "9", "--listen", "127.0.0.1:7778"},
                       [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(run(netns, in_a_container).output.find(fmt::format("choose one of them, {} of ", server.pid())) !=
          std::string::npos);
}

}  // namespace echo_server
