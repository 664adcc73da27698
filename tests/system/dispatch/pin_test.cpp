// SPDX-License-Identifier: BSD-2-Clause
// --pin: the talk's delegation to a user who is not root.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/port_key.h"
#include "support/server.h"

namespace echo_server {

namespace {

namespace fs = std::filesystem;

}  // namespace

TEST_CASE("pin: a user who is not root dumps the maps, opens and closes ports, by the talk's commands") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    Server server(netns, {"--ports", "7,77", "--pin", bpffs.path()});
    CHECK(server.output().find(fmt::format("\n  pinned     {}/echo_ports, echo_socket\n", bpffs.path())) !=
          std::string::npos);
    CHECK(owner_of(bpffs.ports()) == nobody);
    CHECK(owner_of(bpffs.socket()) == nobody);
    const auto as_nobody = [&](const Command& command) {
        const auto [code, output] = run_as_nobody(netns, command);
        CHECK(code == 0);
        return output;
    };
    as_nobody(open_by_bpftool({"pinned", bpffs.ports()}, 777));
    CHECK(echoes(netns, "127.0.0.1", 777));
    const auto dump = as_nobody({"bpftool", "map", "dump", "pinned", bpffs.ports()});
    for (const auto& line : {dump_of(7), dump_of(77), dump_of(777)}) CHECK(dump.find(line) != std::string::npos);
    CHECK(dump.ends_with("Found 3 elements\n"));
    CHECK(as_nobody({"bpftool", "map", "dump", "pinned", bpffs.socket()}).find("key: 00 00 00 00") !=
          std::string::npos);
    as_nobody(close_by_bpftool({"pinned", bpffs.ports()}, 7));
    CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);

    const BpfObjects objects(netns);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK_FALSE(fs::exists(bpffs.ports()));
    CHECK_FALSE(fs::exists(bpffs.socket()));
    CHECK(objects.gone());
}

TEST_CASE("pin: nobody, not even root, can put another socket into echo_socket or take the server's out") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    Server server(netns, {"--ports", "7", "--pin", bpffs.path()});
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 9999, "other");
    const BpfObjects objects(netns);
    const Command key{"key", "0", "0", "0", "0"};
    const auto check = [&](const Command& map, const Command& rest) {
        Command command{"bpftool", "map"};
        command.insert(command.end(), map.begin(), map.end());
        command.insert(command.end(), key.begin(), key.end());
        command.insert(command.end(), rest.begin(), rest.end());
        for (const auto& [code, output] : {run_as_nobody(netns, command), run(netns, command)}) {
            CHECK(code != 0);
            CHECK(output.find("Operation not permitted") != std::string::npos);
        }
    };
    check({"update", "pinned", bpffs.socket()}, {"value", "0", "0", "0", "0", "0", "0", "0", "0"});
    check({"delete", "pinned", bpffs.socket()}, {});
    // A program of the user can't do it either.
    const Fd map(bpf_obj_get(bpffs.socket().c_str()));
    REQUIRE(map);
    const __u32 first = 0;
    const auto evil = static_cast<__u64>(other.fd());
    CHECK(bpf_map_update_elem(map.get(), &first, &evil, BPF_ANY) == -EPERM);
    CHECK(bpf_map_delete_elem(map.get(), &first) == -EPERM);
    CHECK(echoes(netns, "127.0.0.1", 7));
    // The socket still leaves the map when the server closes it.
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    __u64 cookie = 0;
    CHECK(eventually([&] { return bpf_map_lookup_elem(map.get(), &first, &cookie) == -ENOENT; }));
}

TEST_CASE("pin: a reload says that somebody has frozen echo_ports, and the ports stay as they are") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const TempFile file("7,77\n");
    Server server(netns, {"--ports-file", file.path(), "--pin", bpffs.path()});
    const Command freeze{"bpftool", "map", "freeze", "pinned", bpffs.ports()};
    REQUIRE((kernel_before(6, 5) ? run(netns, freeze) : run_as_nobody(netns, freeze)).code == 0);
    const auto check_reload = [&](const std::string& what) {
        CHECK(server.reload().starts_with(
            fmt::format("echo-server: {} ports in the map echo_ports: Operation not permitted; another process has "
                        "frozen the map: restart the server, which makes a new map",
                        what)));
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(echoes(netns, "127.0.0.1", 77));
        CHECK(try_connect(netns, "127.0.0.1", 8) == ECONNREFUSED);
    };
    file.write("7,8\n");
    check_reload("opening");
    file.write("7\n");
    check_reload("closing");
    const Server newer(netns, {"--ports-file", file.path(), "--pin", bpffs.path(), "--replace"});
    CHECK(server.wait() == 0);
    CHECK(try_connect(netns, "127.0.0.1", 77) == ECONNREFUSED);
}

TEST_CASE("pin: where map updates take CAP_BPF, the server says that its user can't use the pins") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    // As before Linux 5.19, where a lookup in a map takes a capability: here every lookup fails.
    Server server(netns, {"--ports", "7", "--pin", bpffs.path()},
                  [] { refuse_system_call(SYS_bpf, BPF_MAP_LOOKUP_ELEM, EPERM); });
    CHECK(server.output().starts_with(
        "echo-server: user nobody can't use the pins: that needs root (CAP_BPF), or Linux 5.19\n"));
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("pin: an ordinary user pins for himself, whatever his group") {
    const Netns netns;
    const Bpffs bpffs(ordinary_user);
    Server server(netns, {"--ports", "7", "--pin", bpffs.path()}, [] { become_ordinary({CAP_BPF, CAP_NET_ADMIN}); });
    CHECK(owner_of(bpffs.ports()) == ordinary_user);
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK_FALSE(fs::exists(bpffs.ports()));
}

TEST_CASE("pin: root follows no link that the folder's owner puts there") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const TempFile secret("root's own\n");
    REQUIRE(::symlink(secret.path().c_str(), bpffs.ports().c_str()) == 0);
    const Server server(netns, {"--ports", "7", "--pin", bpffs.path()}, [&] {
        // The pin has this name first.
        if (::symlink(secret.path().c_str(), (bpffs.ports() + "_new").c_str()) != 0) std::abort();
    });
    CHECK(owner_of(secret.path()) == 0);
    CHECK(run_ok(netns, {"bpftool", "map", "dump", "pinned", bpffs.ports()}).find(dump_of(7)) != std::string::npos);
}

TEST_CASE("pin: a start that fails gives the user no access to objects of others") {
    const Netns netns;
    const Bpffs bpffs(nobody);
    const Bpffs roots(0);
    REQUIRE(::chmod(roots.path().c_str(), 0700) == 0);
    const auto secret = roots.path() + "/secret";
    run_ok(netns, {"bpftool", "map", "create", secret, "type", "array", "key", "4", "value", "4", "entries", "1",
                   "name", "s"});
    REQUIRE(::symlink(secret.c_str(), bpffs.ports().c_str()) == 0);
    CHECK(run(netns, echo_server({"--ports", "7", "--pin", bpffs.path()}), [] {
              refuse_system_call(SYS_bpf, BPF_LINK_CREATE, ENOMEM);
          }).code == 1);
    CHECK(fs::is_symlink(bpffs.ports()));  // the user's own link, unchanged
}

TEST_CASE("pin: where its user may not write, a start pins nothing, and says what to do") {
    const Netns netns;
    const auto check = [&](uid_t owner, mode_t mode, const std::string& user) {
        const Bpffs bpffs(owner);
        REQUIRE(::chmod(bpffs.path().c_str(), mode) == 0);
        const auto [code, output] =
            run(netns, echo_server({"--ports", "7", "--pin", bpffs.path(), "--user", user}), [] {
                const gid_t root = 0;  // as sudo sets it
                if (::setgroups(1, &root) != 0) std::abort();
            });
        CHECK(code == 1);
        CHECK(output ==
              fmt::format("echo-server: pinning {}: Permission denied; give that directory to the user of --user "
                          "('chown')\n",
                          bpffs.path()));
        CHECK_FALSE(fs::exists(bpffs.ports()));
    };
    check(0, 0755, "nobody");
    check(0, 0775, "nobody");
    check(nobody, 0755, "root");
}

TEST_CASE("pin: elsewhere than on a BPF file system it is an error, which says how to mount one") {
    const Netns netns;
    const auto check = [&](const std::string& folder, const std::string& says) {
        const auto [code, output] = run(netns, echo_server({"--ports", "7", "--pin", folder}));
        CHECK(code == 1);
        CHECK(output == fmt::format("echo-server: pinning maps in {}: {}\n", folder, says));
        CHECK(try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED);
    };
    check("/tmp", "it is not on a BPF file system: 'mount -t bpf none DIR' mounts one on an empty directory DIR");
    check("/nowhere", "No such file or directory; make it with 'mkdir /nowhere' and 'mount -t bpf none /nowhere'");
}

}  // namespace echo_server
