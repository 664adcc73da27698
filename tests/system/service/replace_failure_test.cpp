// SPDX-License-Identifier: BSD-2-Clause
// Starts beside a running server that fail, or that replace a server in a bad state: no client loses its connection.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

TEST_CASE("replace: without it a second instance is an error that names the first") {
    const Netns netns;
    const Server first(netns, {"--ports", "7"});
    const auto [code, output] = run(netns, echo_server({"--ports", "8"}));
    CHECK(code == 1);
    CHECK(output ==
          fmt::format("echo-server: an echo-server runs in this network namespace already (process {}): --replace "
                      "takes over from it, and refuses no new connection; or stop it first, or choose other ports, and "
                      "another --listen port\n",
                      first.pid()));
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
}

TEST_CASE("replace: without a server it is an ordinary start; in other namespaces servers may run") {
    const Netns netns;
    const Netns other;
    const Server elsewhere(other, {"--ports", "7"});
    Server server(netns, {"--ports", "7", "--replace"});
    CHECK(server.output().find("replaces") == std::string::npos);
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(echoes(other, "127.0.0.1", 7));
}

TEST_CASE("replace: a wrong start leaves the old process as it is") {
    const Netns netns;
    const NamedServer ssh(netns, NamedServer::Protocol::tcp, "0.0.0.0", 22, "ssh");
    Server older(netns, {"--ports", "7"});
    const std::vector<Command> wrong = {{"--ports-file", "/nowhere"},
                                        {"--ports", "22"},
                                        {"--ports", "7", "--user", "no-such-user"},
                                        {"--ports", "7", "--pin", "/tmp"},
                                        {"--ports", "7", "--max-connections", "1000000000"}};
    for (auto arguments : wrong) {
        CAPTURE(arguments[1]);
        arguments.emplace_back("--replace");
        CHECK(run(netns, echo_server(arguments)).code == 1);
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
    CHECK(older.output().find("replaced") == std::string::npos);
}

TEST_CASE("replace: a new process that fails or is killed at any step leaves the old one serving") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    const std::vector<StartStep> steps = {
        {"load the program", SYS_bpf, BPF_PROG_LOAD},
        {"find the running one", SYS_bpf, BPF_PROG_GET_NEXT_ID},
        {"open it", SYS_pidfd_open},
        {"duplicate its socket", SYS_pidfd_getfd},
        {"ask for listeners", SYS_socket, AF_NETLINK},
        {"open the ports", SYS_bpf, BPF_MAP_UPDATE_BATCH},
        {"attach", SYS_bpf, BPF_LINK_CREATE},
        {"drop the groups", SYS_setgroups},
        {"become the user", SYS_setresuid},
        {"drop capabilities", SYS_capset},
    };
    at_each_step(netns, echo_server({"--ports", "7,8", "--replace"}), EACCES, steps,
                 [&](StepEnd) { CHECK(echoes(netns, "127.0.0.1", 7)); });
    // The first update is libbpf's, for the constants; the second puts the socket into its map.
    const auto no_socket =
        run(netns, echo_server({"--ports", "7,8", "--replace"}), [] { fail_bpf(BPF_MAP_UPDATE_ELEM, after(1)); });
    CHECK(no_socket.code == 1);
    CHECK(no_socket.output.find("echo_socket: Cannot allocate memory") != std::string::npos);
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(older.output().find("replaced") == std::string::npos);
    // The last start succeeds: this shows that the steps before were steps of a replacement.
    const Server newer(netns, {"--ports", "7,8", "--replace"});
    CHECK(older.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 8));
}

TEST_CASE("replace: a new process that is killed at any moment leaves the old one serving") {
    const Netns netns;
    auto older = std::make_unique<Server>(netns, Command{"--ports", "7"});
    for (int i = 0; i < 40; ++i) {
        auto newer = std::make_unique<Process>(netns, echo_server({"--ports", "7", "--replace"}));
        std::this_thread::sleep_for(std::chrono::milliseconds(i));  // a different moment each time
        newer->signal(SIGKILL);
        newer->wait();
        const auto replaced = [&] { return older->output().find("replaced") != std::string::npos; };
        if (!eventually(replaced, std::chrono::milliseconds(50)) && echoes(netns, "127.0.0.1", 7)) continue;
        // The replacement was complete before the kill, so the old process may end.
        REQUIRE(eventually(replaced));
        CHECK(older->wait() == 0);
        older = std::make_unique<Server>(netns, Command{"--ports", "7", "--replace"});
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
}

TEST_CASE("replace: a start that is told to stop before it is complete leaves the old process serving") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    for (const int number : {SIGINT, SIGTERM}) {
        const auto [code, output] = run(netns, echo_server({"--ports", "7", "--replace"}), [&] {
            sigset_t signals;
            ::sigemptyset(&signals);
            ::sigaddset(&signals, number);
            ::sigprocmask(SIG_BLOCK, &signals, nullptr);
            ::raise(number);
        });
        CHECK(code == 1);
        CHECK(output == "echo-server: stopped by a signal before the start was complete\n");
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
    CHECK(older.output().find("replaced") == std::string::npos);
}

TEST_CASE("replace: a process that hangs is replaced, and so is the one after it") {
    const Netns netns;
    Server hung(netns, {"--ports", "7"});
    hung.freeze();
    Server second(netns, {"--ports", "7", "--replace"});
    Server third(netns, {"--ports", "7", "--replace"});
    CHECK(third.output().find(fmt::format("  replaces   process {}, {}, which drain\n", second.pid(), hung.pid())) !=
          std::string::npos);
    CHECK(second.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
    hung.signal(SIGCONT);
    CHECK(hung.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("replace: once the old process drains, no shortage ends the new one") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    // Only one bpf() call reads the ports: that for the difference.
    const Server newer(netns, {"--ports", "7", "--replace"}, [] { fail_bpf(BPF_MAP_LOOKUP_BATCH, after(1)); });
    CHECK(older.wait() == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("replace: where the kernel can't read the running server's maps, it is an error, and the server goes on") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    for (const auto* flag : {"--replace", "--shadow-listeners"}) {
        const auto [code, output] =
            run(netns, echo_server({"--ports", "7", flag}), [] { fail_bpf(BPF_MAP_LOOKUP_ELEM, after(0)); });
        CHECK(code == 1);
        CHECK(output.starts_with("echo-server: reading the BPF map "));
        CHECK(output.ends_with(": Cannot allocate memory\n"));
    }
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(older.output().find("replaced") == std::string::npos);
}

TEST_CASE("replace: the socket stays, so another --listen is an error") {
    const Netns netns;
    Server older(netns, {"--ports", "7"});
    const auto [code, output] = run(netns, echo_server({"--ports", "7", "--replace", "--listen", "0.0.0.0:8888"}));
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: --listen 0.0.0.0:8888: the new server takes the socket of the running one, which is bound to "
          "127.0.0.1:7777: leave out --listen\n");
    const Server same(netns, {"--ports", "7", "--replace", "--listen", "127.0.0.1:7777"});
    CHECK(older.wait() == 0);
}

TEST_CASE("replace: of two replacements at the same moment at most one succeeds, and the service goes on") {
    const Netns netns;
    std::vector<std::unique_ptr<Process>> servers;
    servers.push_back(std::make_unique<Server>(netns, Command{"--ports", "7"}));
    for (int i = 0; i < 15; ++i) {
        for (int j = 0; j < 2; ++j)
            servers.push_back(std::make_unique<Process>(netns, echo_server({"--ports", "7", "--replace"})));
        for (auto server = servers.end() - 2; server != servers.end(); ++server) REQUIRE(start_is_over(**server));
        // All replaced servers, and all that did not succeed, have ended or are about to end.
        CHECK(eventually([&] { return count_links(netns) == 1; }));
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
}

TEST_CASE("replace: needs root") {
    const Netns netns;
    const Server older(netns, {"--ports", "7"});
    const auto [code, output] =
        run(netns, echo_server({"--ports", "7", "--replace"}), [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: looking for echo-servers among the BPF programs: Operation not permitted; that needs "
          "CAP_SYS_ADMIN: start it as root\n");
    Server beside(netns, {"--ports", "8", "--listen", "127.0.0.1:8888"},
                  [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(
        beside.output().starts_with("echo-server: another sk_lookup program is attached here; only a start with "
                                    "CAP_SYS_ADMIN could tell"));
    // Now there are two servers.
    const auto two = run(netns, echo_server({"--ports", "7", "--replace"}));
    CHECK(two.code == 1);
    CHECK(two.output.find("several servers run here, each with its own socket: stop all but one first") !=
          std::string::npos);
}

}  // namespace echo_server
