// SPDX-License-Identifier: BSD-2-Clause
// The announcement of a start, and the errors of a start that fails.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"
#include "support/skip.h"

namespace echo_server {

TEST_CASE("start: says what is open, through which socket, in which namespace, how to reload and stop") {
    const Netns netns;
    const TempFile file("7,77\n");
    Server server(netns, {"--ports", "777", "--ports-file", file.path()});
    // The socket's cookie, as ss and a dump of echo_socket show it.
    const auto listener = run_ok(netns, {"ss", "-Hltne"});
    std::smatch cookie;
    REQUIRE(std::regex_search(listener, cookie, std::regex(R"( sk:(\w+) )")));
    CHECK(server.output() == fmt::format("echo-server {}: 3 TCP ports open: 7,77,777\n"
                                         "  socket     127.0.0.1:7777, for all ports (sk:{} in 'ss -tlne')\n"
                                         "  namespace  {} (netns_ino in 'bpftool link')\n"
                                         "  user       nobody, {}\n"
                                         "  reload     edit {}, then sudo echo-server reload {}\n"
                                         "  stop       Ctrl-C, or sudo kill {}\n",
                                         ECHO_SERVER_VERSION, cookie[1].str(), netns.inode(),
                                         kernel_before(5, 19) ? "with only CAP_BPF" : "without any capability",
                                         file.path(), server.pid(), server.pid()));
}

TEST_CASE("start: as process 1 (in a container) it names no process, as another process has that number outside") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const TempFile file("7\n");
    Command command{"unshare", "--fork", "--pid", "--kill-child", "--mount-proc"};
    // As root, because the kernel forgets --kill-child when the user changes.
    for (const auto& word : echo_server({"--ports-file", file.path(), "--user", "root"})) command.push_back(word);
    Process server(netns, command);
    CHECK(server.wait_for("  reload ") == "  reload     edit " + file.path() + ", then sudo echo-server reload");
    CHECK(server.next_line() == "  stop       Ctrl-C, or send SIGTERM");
}

TEST_CASE("start: wrong usage is one line and exit code 2") {
    const Netns netns;
    struct Case {
        Command arguments;
        std::string says;
    };
    const std::vector<Case> cases = {
        {{}, "no ports given: choose some with --ports 7,77,777 or --ports-file FILE"},
        {{"--ports", "!22"}, "--ports: after the exclusions no port is left"},
        {{"--ports", "7,70000"}, "--ports: '70000' is not allowed here: write ports (7), ranges"},
        {{"--ports", ""}, "--ports: the port list is empty: write ports (7), ranges"},
        {{"--ports"}, "--ports: 1 required LIST missing; "},
        {{"--ports", "7", "--user"}, "--user: 1 required NAME missing; "},
        {{"--ports", "7", "--listen", "[::]:1", "--listen", "[::]:2"}, "server: --listen is given more than once; "},
        {{"--ports", "7", "--threads", "1", "--threads", "1", "--threads", "1"}, "--threads is given more than once; "},
        {{"--ports", "7", "--replace=other"}, "--replace = other; "},
        {{""}, "not expected: ; "},
        {{"--port", "7"}, "not expected: "},
        {{"7"}, "not expected: 7; "},
        {{"--ports", "7,", "77"}, "--ports: '7,' ends with a comma: write a port list without blanks (7,77), or quote"},
        {{"--ports", "'7,", "77'"}, "--ports: ''7' is not allowed here: no shell has removed the quotes"},
        {{"--ports", "'7,77'"}, "''7' is not allowed here: no shell has removed the quotes"},
        {{"--ports", "7", "--listen", "localhost"},
         "--listen: 'localhost' is not an address and a port: write 127.0.0.1:7777"},
        {{"--ports", "7", "--listen", "[::1]:7777"}, "--listen: a socket on '[::1]:7777' would refuse IPv4 clients"},
        {{"--ports", "7", "--drain-timeout", "-1"},
         "--drain-timeout: '-1' is not a whole number of seconds from 0 to 86400; "},
        {{"--ports", "7", "--drain-timeout", "soon"},
         "--drain-timeout: 'soon' is not a whole number of seconds from 0 to 86400; "},
        {{"--ports", "7", "--drain-timeout", "86401"},
         "--drain-timeout: '86401' is not a whole number of seconds from 0 to 86400; "},
        {{"--ports", "7", "--idle-timeout", "1.5"},
         "--idle-timeout: '1.5' is not a whole number of seconds from 0 to 86400; "},
        {{"--ports", "7", "--threads", "0"}, "--threads: '0' is not a whole number from 1 to 1024; "},
        {{"--ports", "7", "--threads", "1025"}, "--threads: '1025' is not a whole number from 1 to 1024; "},
        {{"--ports", "7", "--max-connections", "0"},
         "--max-connections: '0' is not a whole number from 1 to 2147483647; "},
        {{"--ports", "7", "--address", "192.0.2.7/24"},
         "--address: '192.0.2.7/24' has host bits set: write 192.0.2.0/24"},
        {{"--ports", "7", "--address", "here"}, "--address: 'here' is not an address prefix: write 192.0.2.0/24, "},
        {{"--ports", "7", "two\nlines"}, R"(not expected: two\x0alines; )"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.says);
        const auto result = run(netns, echo_server(row.arguments));
        const auto& output = result.output;
        CAPTURE(output);
        CHECK(result.code == 2);
        CHECK(output.starts_with("echo-server: "));
        CHECK(output.find(row.says) != std::string::npos);
        CHECK(output.ends_with("; see echo-server --help\n"));
        CHECK(std::count(output.begin(), output.end(), '\n') == 1);
    }
}

#ifdef NDEBUG
TEST_CASE("start: the release build is hardened") {
    const Netns netns;
    const auto built = run_ok(netns, {"readelf", "-W", "--dynamic", "--segments", "--dyn-syms", ECHO_SERVER});
    for (const std::string trait : {"Flags: NOW PIE", "GNU_RELRO", "__stack_chk_fail", "__memcpy_chk"}) {
        CAPTURE(trait);
        CHECK(built.find(trait) != std::string::npos);
    }
}
#endif

TEST_CASE("start: --help and --version") {
    const Netns netns;
    for (const Command& subcommand : {Command{}, Command{"status"}, Command{"reload"}, Command{"probe"}}) {
        auto command = echo_server(subcommand);
        command.emplace_back("--help");
        const auto help = run(netns, command);
        CAPTURE(help.output);
        CHECK(help.code == 0);
        CHECK(count(help.output, "\n") <= 34);  // a screen has 40, and versions of CLI11 differ
        std::istringstream lines(help.output);
        for (std::string line; std::getline(lines, line);) {
            CAPTURE(line);
            CHECK(line.size() < 80);
        }
    }
    const auto help = run_ok(netns, echo_server({"--help"}));
    for (const std::string piece : {"echo-server [OPTIONS] [SUBCOMMAND", "--ports LIST", "--ports-file FILE",
                                    "--listen ADDR:PORT", "SIGHUP", "Example:"})
        CHECK(help.find(piece) != std::string::npos);
    CHECK(run_ok(netns, echo_server({"--version"})) == "echo-server " ECHO_SERVER_VERSION "\n");
}

TEST_CASE("start: in another user namespace it says that BPF programs belong to the initial one") {
    if (!possible_in_child(leave_user_namespace)) return;
    const auto [code, output] = run(Netns(), echo_server({"--ports", "7"}), [] {
        if (!leave_user_namespace() || !std::ofstream("/proc/self/uid_map").write("0 0 1", 5).flush()) std::abort();
    });
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: becoming user nobody: Operation not permitted; BPF programs need the initial user namespace, "
          "and this is another one (of a rootless container, or by PrivateUsers= in a systemd unit): start echo-server "
          "outside of it\n");
}

TEST_CASE("start: what can't be done is one line that says why and what to do, and exit code 1") {
    const Netns netns;
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 9999, "other");
    const auto check = [&](const Command& arguments, const std::string& says, const std::function<void()>& in_child) {
        CAPTURE(says);
        const auto [code, output] = run(netns, echo_server(arguments), in_child);
        CHECK(code == 1);
        CHECK(output == "echo-server: " + says + "\n");
    };
    const Command seven{"--ports", "7"};
    const auto listen_on = [](const char* address) { return Command{"--ports", "7", "--listen", address}; };

    check({"--ports-file", "/nowhere"}, "reading ports file /nowhere: No such file or directory", {});
    check(listen_on("127.0.0.1:9999"),
          "listening on 127.0.0.1:9999: Address already in use; another program, perhaps another echo-server, listens "
          "there: choose another address or port with --listen",
          {});
    check(listen_on("192.0.2.77:7777"),
          "listening on 192.0.2.77:7777: Cannot assign requested address; no interface here has this address: choose "
          "another with --listen, or bring the interface up ('ip link set lo up'); a systemd unit with "
          "PrivateNetwork=yes has only the addresses of lo",
          {});
    check(listen_on("127.0.0.1:80"),
          "listening on 127.0.0.1:80: Permission denied; ports below 1024 need CAP_NET_BIND_SERVICE: choose another "
          "with --listen",
          [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });

    const std::string needed =
        "loading the BPF program: Operation not permitted; CAP_BPF and CAP_NET_ADMIN are needed (before Linux 5.11 "
        "also 'ulimit -l unlimited'): start echo-server as root, or give it both (AmbientCapabilities= in a systemd "
        "unit, --cap-add for a container, see scripts/containers.md in the sources); if it has both, a seccomp filter "
        "or a security module refuses bpf()";
    check(seven, needed, [] { become_ordinary({}); });
    check(seven, needed, [] { become_ordinary({CAP_BPF}); });
    check(seven, needed, [] { become_ordinary({CAP_NET_ADMIN}); });
    const auto refuse_bpf = [] { refuse_system_call(SYS_bpf, -1, EPERM); };
    check(seven, needed, refuse_bpf);
    check(seven, needed, [&] {
        keep_capabilities({CAP_BPF, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID});
        refuse_bpf();
    });
    check(seven,
          "loading the BPF program: Function not implemented; this kernel has no bpf(): one built with "
          "CONFIG_BPF_SYSCALL=y is needed",
          [] { refuse_system_call(SYS_bpf, -1, ENOSYS); });
    check(seven,
          "loading the BPF program: Invalid argument; this kernel has no sk_lookup programs: Linux 5.10 or newer is "
          "needed, built with CONFIG_INET=y and CONFIG_BPF_SYSCALL=y",
          [] { refuse_system_call(SYS_bpf, BPF_PROG_LOAD, EINVAL); });
    check(seven,
          "loading the BPF program: Invalid argument; this kernel has no sockmap: one built with "
          "CONFIG_BPF_STREAM_PARSER=y is needed (from Linux 5.12 on, CONFIG_INET=y and CONFIG_BPF_SYSCALL=y suffice)",
          [] { refuse_system_call(SYS_bpf, BPF_MAP_CREATE, EINVAL); });
}

#ifdef NDEBUG  // sanitizers need /proc themselves
TEST_CASE("start: without /proc a start and status fail, and the error names /proc") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    for (const Command& arguments : {Command{"--ports", "7"}, Command{"status"}}) {
        const auto [code, output] = run(netns, echo_server(arguments), [] {
            if (!leave_mount_namespace() || ::umount2("/proc", MNT_DETACH) != 0) std::abort();
        });
        CHECK(code == 1);
        CHECK(
            output ==
            "echo-server: looking for /proc/thread-self: /proc is not mounted, or it belongs to another PID namespace: "
            "mount it ('mount -t proc proc /proc')\n");
    }
}
#endif

TEST_CASE("start: on a kernel without IPv6 it serves IPv4") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"}, [] { refuse_system_call(SYS_socket, AF_INET6, EAFNOSUPPORT); });
    CHECK(echoes(network.host, Network::vm_ip4, 7));
    CHECK(run_ok(network.vm, {"ss", "-Hltn"}).find(" 127.0.0.1:7777 ") != std::string::npos);
}

}  // namespace echo_server
