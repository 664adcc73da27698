// SPDX-License-Identifier: BSD-2-Clause
// The rights of the serving process.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "base/privileges.h"
#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

/// The value behind `name` in /proc/PID/status, with single blanks.
std::string status_of(const Process& process, const std::string& name) {
    std::ifstream file(fmt::format("/proc/{}/status", process.pid()));
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with(name + ":")) continue;
        std::string value;
        std::istringstream words(line.substr(name.size() + 1));
        for (std::string word; words >> word;) value += (value.empty() ? "" : " ") + word;
        return value;
    }
    return "?";
}

constexpr auto no_capability = "0000000000000000";
constexpr auto cap_bpf_alone = "0000008000000000";

/// The capabilities of a server that had CAP_BPF at its start: since Linux 5.19 the holder of a map needs none to use
/// it.
std::string kept_capabilities() { return kernel_before(5, 19) ? cap_bpf_alone : no_capability; }

void check_is_without_privileges(const Process& process, const std::string& id,
                                 const std::string& kept = kept_capabilities()) {
    CHECK(status_of(process, "Uid") == fmt::format("{0} {0} {0} {0}", id));
    CHECK(status_of(process, "Gid") == fmt::format("{0} {0} {0} {0}", id));
    CHECK(status_of(process, "Groups").empty());
    CHECK(status_of(process, "NoNewPrivs") == "1");
    CHECK(status_of(process, "CapPrm") == kept);
    CHECK(status_of(process, "CapEff") == kept);
    CHECK(status_of(process, "CapInh") == no_capability);
    CHECK(status_of(process, "CapAmb") == no_capability);
}

}  // namespace

TEST_CASE("privileges: started by root it becomes nobody, and still reloads, drains and shows its status") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()}, [] {
        const std::array<gid_t, 3> groups{0, 4, 27};
        if (::setgroups(groups.size(), groups.data()) != 0) std::abort();
    });
    check_is_without_privileges(server, "65534");
    file.write("8\n");
    CHECK(server.reload() == fmt::format("reloaded {}: added 8; removed 7; 1 port open", file.path()));
    CHECK(echoes(netns, "::1", 8));
    CHECK(status_shows(netns, "user nobody, up "));
    Client client = connected(netns, 8);
    server.signal(SIGTERM);
    server.wait_for("waiting up to 5 s for 1 connection");
    client.shutdown_write();
    CHECK(client.at_end());
    CHECK(server.wait() == 0);
}

TEST_CASE("privileges: --user names the user that it becomes; root stays root, without capabilities") {
    const Netns netns;
    check_is_without_privileges(Server(netns, {"--ports", "7", "--user", "daemon"}), "1");
    check_is_without_privileges(Server(netns, {"--ports", "7", "--user", "root"}), "0");
}

TEST_CASE("privileges: an ordinary user with CAP_BPF and CAP_NET_ADMIN starts it, and it keeps neither") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()}, [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    check_is_without_privileges(server, std::to_string(ordinary_user));
    CHECK(server.output().find(fmt::format("  stop       Ctrl-C, or kill {}\n", server.pid())) != std::string::npos);
    file.write("8\n");
    CHECK(server.reload() == fmt::format("reloaded {}: added 8; removed 7; 1 port open", file.path()));
    CHECK(echoes(netns, "127.0.0.1", 8));
}

TEST_CASE("privileges: an ordinary user gets both capabilities from the file of the program") {
    const Netns netns;
    // As 'setcap cap_bpf,cap_net_admin=p' does: not effective, so that the program starts without them, too.
    const TempFile program("");
    std::filesystem::copy_file(ECHO_SERVER, program.path(), std::filesystem::copy_options::overwrite_existing);
    REQUIRE(::chmod(program.path().c_str(), 0755) == 0);
    vfs_cap_data capabilities{.magic_etc = VFS_CAP_REVISION_2, .data = {}};
    capabilities.data[0].permitted = static_cast<__u32>(capability_bit(CAP_NET_ADMIN));
    capabilities.data[1].permitted = static_cast<__u32>(capability_bit(CAP_BPF) >> 32U);
    REQUIRE(::setxattr(program.path().c_str(), "security.capability", &capabilities, sizeof(capabilities), 0) == 0);

    const Command start{program.path(), "--ports", "7"};
    const auto serves = [&](const std::function<void()>& in_child) {
        Process server(netns, start, in_child);
        server.wait_for("  stop ");
        check_is_without_privileges(server, std::to_string(ordinary_user));
        CHECK(echoes(netns, "127.0.0.1", 7));
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
    };
    serves([] { become_ordinary({}); });
    // With no_new_privs, the file gives only what was permitted before: in most containers, both.
    serves([] {
        become_ordinary({CAP_BPF, CAP_NET_ADMIN});
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) std::abort();
    });

    const auto without = run(netns, start, [] {
        for (const int capability : {CAP_BPF, CAP_NET_ADMIN})
            if (::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) std::abort();
        become_ordinary({});
    });
    CHECK(without.code == 1);
    CHECK(without.output.find("CAP_BPF and CAP_NET_ADMIN are needed") != std::string::npos);
}

TEST_CASE("privileges: where map updates take CAP_BPF, it keeps only that") {
    const Netns netns;
    // As before Linux 5.19, where a lookup in a map takes a capability: here every lookup fails.
    Server server(netns, {"--ports", "7"}, [] { refuse_system_call(SYS_bpf, BPF_MAP_LOOKUP_ELEM, EPERM); });
    CHECK(server.output().find("  user       nobody, with only CAP_BPF\n") != std::string::npos);
    check_is_without_privileges(server, "65534", cap_bpf_alone);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("privileges: CAP_SYS_ADMIN replaces CAP_BPF, and a user may be a number without a name") {
    const Netns netns;
    const Server server(netns, {"--ports", "7", "--user", "12345"},
                        [] { keep_capabilities({CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID}); });
    check_is_without_privileges(server, "12345", no_capability);
    CHECK(status_shows(netns, "user 12345, "));
}

TEST_CASE("privileges: where map updates take CAP_BPF, and it has none, it serves and says what will fail") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()}, [] {
        keep_capabilities({CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_SETUID, CAP_SETGID});
        refuse_system_call(SYS_bpf, BPF_MAP_LOOKUP_ELEM, EPERM);
    });
    CHECK(server.output().starts_with(
        "echo-server: SIGHUP will fail, and no port will be closed for a program that begins to listen there: on this "
        "kernel BPF maps need CAP_BPF, and the server was started without it: give it CAP_BPF (AmbientCapabilities= in "
        "a systemd unit)\n"));
    check_is_without_privileges(server, "65534", no_capability);
    CHECK(echoes(netns, "127.0.0.1", 7));
    server.signal(SIGUSR1);
    CHECK(server.wait_for("SIGUSR1") ==
          "echo-server: SIGUSR1: on this kernel BPF maps need CAP_BPF, and the server was started without it: give it "
          "CAP_BPF (AmbientCapabilities= in a systemd unit); the status is not logged");
}

TEST_CASE("privileges: a user that it can't become is an error at the start") {
    const Netns netns;
    const auto check = [&](const char* user, const std::string& says, const std::function<void()>& in_child) {
        CAPTURE(says);
        const auto [code, output] = run(netns, echo_server({"--ports", "7", "--user", user}), in_child);
        CHECK(code == 1);
        CHECK(output == "echo-server: " + says + "\n");
    };
    check("no-such-user", "there is no user 'no-such-user': choose another one, or a number, with --user", {});
    check("4294967295", "there is no user '4294967295': choose another one, or a number, with --user", {});
    check("daemon", "becoming user 'daemon' needs root: start echo-server as root, or without --user",
          [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    check(
        "daemon",
        "becoming user daemon: Operation not permitted; it needs CAP_SETUID and CAP_SETGID: grant both (--cap-add for "
        "a container), set DynamicUser=yes or User= in a systemd unit, or stay root with --user root",
        [] { keep_capabilities({CAP_BPF, CAP_NET_ADMIN}); });
    const Server server(netns, {"--ports", "7", "--user", "root"}, [] {
        if (::setgroups(0, nullptr) != 0) std::abort();  // sudo gives root the group root as an additional group
        keep_capabilities({CAP_BPF, CAP_NET_ADMIN});
    });
    check_is_without_privileges(server, "0");
}

TEST_CASE("privileges: a ports file that the user can't read is an error at the start, as at a reload") {
    const Netns netns;
    const TempFile file("7\nsecret:$6$salt$hash\n");
    REQUIRE(::chmod(file.path().c_str(), 0600) == 0);
    const auto refusal = fmt::format(
        "echo-server: reading ports file {}: Permission denied for user nobody: let it read the file (chmod a+r, and "
        "a+x on its directories), or choose another user by --user",
        file.path());
    CHECK(run(netns, echo_server({"--ports-file", file.path()})).output == refusal + "\n");
    const auto of_root = run(netns, echo_server({"--ports-file", file.path(), "--user", "root"}));
    CHECK(of_root.output.find("'secret:$6$salt$hash' is not allowed here") != std::string::npos);
    REQUIRE(::chmod(file.path().c_str(), 0644) == 0);
    file.write("7\n");
    Server server(netns, {"--ports-file", file.path()});
    REQUIRE(::chmod(file.path().c_str(), 0600) == 0);
    CHECK(server.reload() == refusal + "; the ports stay as they are");
}

}  // namespace echo_server
