// SPDX-License-Identifier: BSD-2-Clause
// The trust of 'status' and --replace in the map echo_instance, in which a server says who it is.
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/os.h"
#include "echo_dispatch.h"
#include "echo_dispatch.skel.h"
#include "support/child.h"
#include "support/client.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

namespace {

/// Our program, attached by somebody who writes lies into echo_instance.
class StandIn {
 public:
    StandIn(const Netns& netns, const echo_instance& identity, const NamedServer* listener = nullptr)
        : StandIn(netns, &identity, sizeof(identity), listener) {}
    /// The same with an echo_instance of this size.
    StandIn(const Netns& netns, std::size_t size) : StandIn(netns, nullptr, size, nullptr) {}

 private:
    StandIn(const Netns& netns, const echo_instance* identity, std::size_t size, const NamedServer* listener)
        : skeleton_(echo_dispatch_bpf::open()) {
        REQUIRE(skeleton_);
        auto* map = skeleton_->maps.echo_instance;
        REQUIRE(bpf_map__set_value_size(map, static_cast<__u32>(size)) == 0);
        REQUIRE(echo_dispatch_bpf::load(skeleton_.get()) == 0);
        const int program = bpf_program__fd(skeleton_->progs.echo_dispatch);
        REQUIRE(bpf_prog_bind_map(program, bpf_map__fd(map), nullptr) == 0);
        const __u32 key = 0;
        if (identity != nullptr) REQUIRE(bpf_map_update_elem(bpf_map__fd(map), &key, identity, BPF_ANY) == 0);
        if (listener != nullptr) {
            const auto value = static_cast<__u64>(listener->fd());
            REQUIRE(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.echo_socket), &key, &value, BPF_ANY) == 0);
        }
        link_.reset(bpf_program__attach_netns(skeleton_->progs.echo_dispatch, netns.fd()));
        REQUIRE(link_);
    }

    struct Destroy {
        void operator()(echo_dispatch_bpf* skeleton) const { echo_dispatch_bpf::destroy(skeleton); }
        void operator()(bpf_link* link) const { bpf_link__destroy(link); }
    };
    std::unique_ptr<echo_dispatch_bpf, Destroy> skeleton_;
    std::unique_ptr<bpf_link, Destroy> link_;
};

/// The echo_instance of a server with `pid` that started at `start`.
echo_instance identity_of(const Netns& netns, pid_t pid, std::uint64_t start) {
    echo_instance identity{};
    identity.netns = netns.inode();
    identity.pid_namespace = inode_of_namespace("pid");
    identity.pid = static_cast<__u32>(pid);
    identity.process_start = start;
    return identity;
}

}  // namespace

TEST_CASE("status: what a server says about itself can't be changed once it serves, not even by root") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto id = std::stoul(BpfObjects(netns).maps.at("echo_instance"));
    const Fd map(bpf_map_get_fd_by_id(static_cast<__u32>(id)));
    REQUIRE(map);
    const __u32 key = 0;
    const echo_instance lie{};
    CHECK(bpf_map_update_elem(map.get(), &key, &lie, BPF_ANY) == -EPERM);
    CHECK(::mmap(nullptr, sizeof(lie), PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0) == MAP_FAILED);
    CHECK(only_status(netns)["pid"] == server.pid());
}

TEST_CASE("status: a later process with the PID of a server that ended is not taken for it") {
    const Netns netns;
    // Somebody keeps the program of a server whose PID this test has now.
    const StandIn ended(netns, identity_of(netns, ::getpid(), start_of_this_process() - 1));
    const auto shown = only_status(netns);
    CHECK(shown["pid"] == nullptr);
    CHECK(shown["pid_in_its_namespace"] == ::getpid());
    CHECK(shown["user"] == nullptr);
    CHECK(shown["uptime_seconds"] == nullptr);
    CHECK(
        status_shows(netns, fmt::format(": process {} of another version, which has ended, user ?, up ?", ::getpid())));
    // It does not stop a start, and can't be replaced.
    for (const bool replace : {false, true}) {
        CAPTURE(replace);
        Server server(netns, replace ? Command{"--ports", "7", "--replace"} : Command{"--ports", "7"});
        CHECK(server.output().find("replaces") == std::string::npos);
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
}

TEST_CASE("status: shows and names the process that a server says it is") {
    const Netns netns;
    for (const auto start : {start_of_this_process(), std::uint64_t{0}}) {  // an older server does not tell its start
        CAPTURE(start);
        const StandIn server(netns, identity_of(netns, ::getpid(), start));
        CHECK(only_status(netns)["pid"] == ::getpid());
        CHECK(only_status(netns)["user"] == "root");
        CHECK(run(netns, echo_server({"--ports", "7"})).output.find(fmt::format("(process {})", ::getpid())) !=
              std::string::npos);
    }
}

#ifdef NDEBUG  // sanitizers need memory too
TEST_CASE("status: maps of any size cost it little memory") {
    const Netns netns;
    const StandIn other(netns, std::size_t{128} << 20U);
    const auto [code, output] = run(netns, echo_server({"status"}), [] {
        const rlimit limit{.rlim_cur = std::size_t{64} << 20U, .rlim_max = std::size_t{64} << 20U};
        if (::setrlimit(RLIMIT_DATA, &limit) != 0) std::abort();
    });
    CHECK(code == 1);
    CHECK(output == "echo-server: no echo-server runs in this network namespace\n");
}
#endif

TEST_CASE("replace: takes only the socket that is in the map of the running process") {
    const Netns netns;
    const NamedServer listener(netns, NamedServer::Protocol::tcp, "::", 9999, "other");
    const NamedServer evil(netns, NamedServer::Protocol::tcp, "::", 9998, "evil");
    const Netns elsewhere;  // its descriptor is not of a socket
    for (const int fd : {evil.fd(), elsewhere.fd()}) {
        auto identity = identity_of(netns, ::getpid(), start_of_this_process());
        identity.listener = fd;
        const StandIn server(netns, identity, &listener);
        const auto [code, output] = run(netns, echo_server({"--ports", "7", "--replace"}));
        CHECK(code == 1);
        CHECK(output == fmt::format("echo-server: replacing process {}: its listening socket is not the one in the map "
                                    "echo_socket: stop it first; the old server keeps running\n",
                                    ::getpid()));
    }
}

}  // namespace echo_server
