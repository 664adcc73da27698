// SPDX-License-Identifier: BSD-2-Clause
// --pin where another server has pinned before, or pins at the same time.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/port_key.h"
#include "support/server.h"

namespace echo_server {

namespace {

namespace fs = std::filesystem;

/// The number of pins of servers. (The kernel may put some *.debug into each file system.)
std::ptrdiff_t files_in(const Bpffs& bpffs) {
    return std::count_if(fs::directory_iterator(bpffs.path()), {},
                         [](const auto& entry) { return entry.path().filename().string().starts_with("echo_"); });
}

/// The present pins of a running server.
class PinsOf {
 public:
    PinsOf(const Netns& netns, const Bpffs& bpffs)
        : netns_(netns),
          bpffs_(bpffs),
          ports_(status_of_file(bpffs.ports())),
          socket_(status_of_file(bpffs.socket())) {}

    void check_are_as_they_were() const {
        check_same(bpffs_.ports(), ports_);
        check_same(bpffs_.socket(), socket_);
    }

    /// Checks that the user nobody can open and close ports through the pins.
    void check_are_usable() const {
        if (kernel_before(5, 19)) return;  // only root can use a map
        const auto as_nobody = [&](const Command& command) {
            const auto result = run_as_nobody(netns_, command);
            CAPTURE(result.output);
            CHECK(result.code == 0);
        };
        as_nobody(open_by_bpftool({"pinned", bpffs_.ports()}, 9));
        CHECK(echoes(netns_, "127.0.0.1", 9));
        as_nobody(close_by_bpftool({"pinned", bpffs_.ports()}, 9));
        CHECK(try_connect(netns_, "127.0.0.1", 9) == ECONNREFUSED);
    }

 private:
    static void check_same(const std::string& path, const struct stat& before) {
        CAPTURE(path);
        REQUIRE(fs::exists(path));
        const auto now = status_of_file(path);
        CHECK(now.st_ino == before.st_ino);
        CHECK(now.st_uid == before.st_uid);
        CHECK(now.st_gid == before.st_gid);
    }

    const Netns& netns_;
    const Bpffs& bpffs_;
    struct stat ports_;
    struct stat socket_;
};

void refuse_to_attach() { refuse_system_call(SYS_bpf, BPF_LINK_CREATE, ENOMEM); }

}  // namespace

TEST_CASE("pin: pins that a killed server left are replaced") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    {
        Server killed(netns, {"--ports", "7", "--pin", bpffs.path()});
        killed.signal(SIGKILL);
        killed.wait();
    }
    REQUIRE(fs::exists(bpffs.ports()));
    Server server(netns, {"--ports", "8", "--pin", bpffs.path()});
    CHECK(server.output().starts_with(fmt::format(
        "echo-server: pins of another echo-server in {} were replaced; if it still runs, its user has lost them\n",
        bpffs.path())));
    CHECK(run_ok(netns, {"bpftool", "map", "dump", "pinned", bpffs.ports()}).find(dump_of(8)) != std::string::npos);
}

TEST_CASE("pin: unnamed pins that killed servers left are gone after the next start") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    for (int i = 0; i < 3; ++i)
        CHECK(run(netns, echo_server({"--ports", "7", "--pin", bpffs.path()}), [] {
                  kill_at_system_call(SYS_bpf, BPF_LINK_CREATE);
              }).code == -SIGSYS);
    CHECK(files_in(bpffs) == 2);
    CHECK_FALSE(fs::exists(bpffs.ports()));
    const Server server(netns, {"--ports", "7", "--pin", bpffs.path()});
    CHECK(files_in(bpffs) == 2);
    CHECK(fs::exists(bpffs.ports()));
    CHECK(fs::exists(bpffs.socket()));
}

TEST_CASE("pin: a server that is replaced leaves the pins of the new one alone") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    Server older(netns, {"--ports", "7", "--pin", bpffs.path()});
    const Server newer(netns, {"--ports", "8", "--pin", bpffs.path(), "--replace"});
    CHECK(older.wait() == 0);
    CHECK(run_ok(netns, {"bpftool", "map", "dump", "pinned", bpffs.ports()}).find(dump_of(8)) != std::string::npos);
}

TEST_CASE("pin: a replacement that fails or is killed at any step leaves the running server's pins as they were") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    Server older(netns, {"--ports", "7", "--pin", bpffs.path()});
    const PinsOf pins(netns, bpffs);
    const auto replacement = echo_server({"--ports", "8", "--pin", bpffs.path(), "--replace"});
    const std::vector<StartStep> steps = {
        {"load the program", SYS_bpf, BPF_PROG_LOAD},
        {"pin a map", SYS_bpf, BPF_OBJ_PIN},
        {"open the ports", SYS_bpf, BPF_MAP_UPDATE_BATCH},
        {"attach", SYS_bpf, BPF_LINK_CREATE},
        {"become the user", SYS_setresuid},
        {"renounce privileges", SYS_prctl, PR_SET_NO_NEW_PRIVS},
        {"give the pins their names", SYS_renameat},
    };
    at_each_step(netns, replacement, ENOMEM, steps, [&](StepEnd end) {
        pins.check_are_as_they_were();
        if (end == StepEnd::failed)
            CHECK(files_in(bpffs) == 2);
        else
            pins.check_are_usable();
    });
    older.signal(SIGTERM);
    CHECK(older.wait() == 0);
    CHECK_FALSE(fs::exists(bpffs.ports()));
    CHECK_FALSE(fs::exists(bpffs.socket()));
}

TEST_CASE("pin: a replacement that can't become the user or have threads leaves the running server's pins alone") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const Server older(netns, {"--ports", "7", "--pin", bpffs.path()});
    const PinsOf pins(netns, bpffs);
    const auto check = [&](const std::function<void()>& in_child) {
        const auto failed =
            run(netns, echo_server({"--ports", "8", "--threads", "2", "--pin", bpffs.path(), "--replace"}), in_child);
        CHECK(failed.code == 1);
        pins.check_are_as_they_were();
        pins.check_are_usable();
    };
    check([] { keep_capabilities({CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE}); });
    check([] {
        const rlimit limit{.rlim_cur = 1, .rlim_max = 1};
        if (::setrlimit(RLIMIT_NPROC, &limit) != 0) std::abort();
        // The older server is a process of the same user, so the user may have no other.
    });
}

TEST_CASE("pin: a replacement for another user that is refused leaves the first user's pins as they were") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const NamedServer ssh(netns, NamedServer::Protocol::tcp, "0.0.0.0", 22, "ssh");
    const Server older(netns, {"--ports", "7", "--pin", bpffs.path()});
    const PinsOf pins(netns, bpffs);
    for (const auto* ports : {"8", "22"}) {
        CAPTURE(ports);
        const auto refused =
            run(netns, echo_server({"--ports", ports, "--user", "daemon", "--pin", bpffs.path(), "--replace"}),
                refuse_to_attach);
        CHECK(refused.code == 1);
        CHECK(files_in(bpffs) == 2);
        pins.check_are_as_they_were();
        pins.check_are_usable();
    }
}

TEST_CASE("pin: where a folder has the name of a pin, no pin is replaced") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const Server older(netns, {"--ports", "7", "--pin", bpffs.path()});
    const PinsOf pins(netns, bpffs);
    for (const auto& name : {bpffs.ports(), bpffs.socket()}) {
        const auto aside = bpffs.path() + "/aside";
        fs::rename(name, aside);
        fs::create_directory(name);
        const auto failed = run(netns, echo_server({"--ports", "8", "--pin", bpffs.path(), "--replace"}));
        CHECK(failed.code == 1);
        CHECK(failed.output == fmt::format("echo-server: pinning {}: Is a directory\n", name));
        fs::remove(name);
        fs::rename(aside, name);
        CHECK(files_in(bpffs) == 2);
        pins.check_are_as_they_were();
    }
}

}  // namespace echo_server
