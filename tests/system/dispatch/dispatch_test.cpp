// SPDX-License-Identifier: BSD-2-Clause
// The verdicts of the dispatch program, one by one and without packets: bpf_prog_test_run with a made-up context.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <doctest/doctest.h>
#include <netinet/in.h>

#include <memory>

#include "dispatch/dispatcher.h"
#include "echo_dispatch.h"
#include "echo_dispatch.skel.h"
#include "net/address.h"
#include "net/sockets.h"
#include "support/netns.h"
#include "support/process.h"

namespace echo_server {

namespace {

enum SkAction : std::uint32_t { drop = SK_DROP, pass = SK_PASS };

struct Verdict {
    std::uint32_t action;
    std::uint64_t cookie;  // of the assigned socket, or 0
    bool operator==(const Verdict&) const = default;
};

std::uint64_t cookie_of(const Fd& socket) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    REQUIRE(::getsockopt(socket.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0);
    return cookie;
}

/// The program and its maps, loaded, and attached to nothing.
class Program {
 public:
    Program() : skeleton_(echo_dispatch_bpf::open_and_load(), echo_dispatch_bpf::destroy) {
        REQUIRE(skeleton_ != nullptr);
    }

    void open_port(std::uint16_t port) {
        const std::uint8_t value = 0;
        REQUIRE(bpf_map__update_elem(skeleton_->maps.echo_ports, &port, sizeof(port), &value, sizeof(value), BPF_ANY) ==
                0);
    }

    void insert(const Fd& socket) {
        const std::uint32_t key = 0;
        const auto value = static_cast<std::uint64_t>(socket.get());
        REQUIRE(bpf_map__update_elem(skeleton_->maps.echo_socket, &key, sizeof(key), &value, sizeof(value), BPF_ANY) ==
                0);
    }

    Verdict run(std::uint32_t family, std::uint32_t protocol, std::uint16_t port) {
        bpf_sk_lookup context{};
        context.family = family;
        context.protocol = protocol;
        context.local_port = port;
        context.remote_port = htons(40000);
        bpf_test_run_opts options{};
        options.sz = sizeof(options);
        options.ctx_in = &context;
        options.ctx_out = &context;
        options.ctx_size_in = sizeof(context);
        options.ctx_size_out = sizeof(context);
        REQUIRE(bpf_prog_test_run_opts(bpf_program__fd(skeleton_->progs.echo_dispatch), &options) == 0);
        return {options.retval, context.cookie};
    }

    std::uint64_t drops(std::uint32_t reason) {
        std::uint64_t count = 0;
        REQUIRE(bpf_map__lookup_elem(skeleton_->maps.echo_drops, &reason, sizeof(reason), &count, sizeof(count), 0) ==
                0);
        return count;
    }

 private:
    std::unique_ptr<echo_dispatch_bpf, void (*)(echo_dispatch_bpf*)> skeleton_;
};

/// A thread in a namespace of its own, with a listener and a program that dispatches port 7 to it.
struct Fixture {
    Fixture() {
        program.open_port(7);
        program.insert(listener);
    }
    Netns netns;
    Netns::Entered entered{netns};
    Fd listener = open_listener(parse_endpoint("127.0.0.1:7777"));
    Program program;
};

}  // namespace

TEST_CASE("dispatch: a port of ours goes to our socket, from both families") {
    Fixture fixture;
    const Verdict ours{pass, cookie_of(fixture.listener)};
    CHECK(fixture.program.run(AF_INET, IPPROTO_TCP, 7) == ours);
    CHECK(fixture.program.run(AF_INET6, IPPROTO_TCP, 7) == ours);
}

TEST_CASE("dispatch: any other port is left to the kernel") {
    Fixture fixture;
    for (const std::uint16_t port : std::initializer_list<std::uint16_t>{1, 6, 8, 0x0700, 7777, 65535}) {
        CAPTURE(port);
        CHECK(fixture.program.run(AF_INET, IPPROTO_TCP, port) == Verdict{pass, 0});
        CHECK(fixture.program.run(AF_INET6, IPPROTO_TCP, port) == Verdict{pass, 0});
    }
}

TEST_CASE("dispatch: UDP is left to the kernel, on a port of ours too") {
    Fixture fixture;
    CHECK(fixture.program.run(AF_INET, IPPROTO_UDP, 7) == Verdict{pass, 0});
    CHECK(fixture.program.run(AF_INET6, IPPROTO_UDP, 7) == Verdict{pass, 0});
}

TEST_CASE("dispatch: without a socket, a port of ours is dropped and counted") {
    Program program;
    program.open_port(7);
    CHECK(program.run(AF_INET, IPPROTO_TCP, 7) == Verdict{drop, 0});
    CHECK(program.run(AF_INET6, IPPROTO_TCP, 7) == Verdict{drop, 0});
    CHECK(program.run(AF_INET, IPPROTO_TCP, 8) == Verdict{pass, 0});
    CHECK(program.drops(ECHO_DROP_NO_SOCKET) == 2);
    CHECK(program.drops(ECHO_DROP_NOT_ASSIGNED) == 0);
}

TEST_CASE("dispatch: a socket that closes leaves the map") {
    Fixture fixture;
    fixture.listener = Fd();
    CHECK(fixture.program.run(AF_INET, IPPROTO_TCP, 7) == Verdict{drop, 0});
    CHECK(fixture.program.drops(ECHO_DROP_NO_SOCKET) == 1);
}

TEST_CASE("dispatch: if the kernel refuses the socket, the packet is dropped and counted") {
    Fixture fixture;
    const Fd ip4_only(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(::listen(ip4_only.get(), 1) == 0);
    fixture.program.insert(ip4_only);
    CHECK(fixture.program.run(AF_INET, IPPROTO_TCP, 7) == Verdict{pass, cookie_of(ip4_only)});
    CHECK(fixture.program.run(AF_INET6, IPPROTO_TCP, 7) == Verdict{drop, 0});
    CHECK(fixture.program.drops(ECHO_DROP_NOT_ASSIGNED) == 1);
    CHECK(fixture.program.drops(ECHO_DROP_NO_SOCKET) == 0);
}

TEST_CASE("dispatch: the map has room for every port at once, and holds exactly the ports that are set") {
    const Netns netns;
    const Netns::Entered entered(netns);
    const Fd listener = open_listener(parse_endpoint("127.0.0.1:7777"));
    Dispatcher dispatcher;
    dispatcher.set_listener(listener.get());
    PortSet all;
    all.insert(0, 65535);
    CHECK(dispatcher.set_ports(all).added == all);
    PortSet few;
    few.insert(7);
    few.insert(65535);
    const auto change = dispatcher.set_ports(few);
    CHECK(change.added.empty());
    CHECK(change.removed == all - few);
    CHECK(dispatcher.set_ports(PortSet()).removed == few);
}

TEST_CASE("dispatch: a socket that was closed is not in the map any more") {
    const Netns netns;
    const Netns::Entered entered(netns);
    Dispatcher dispatcher;
    Fd listener = open_listener(parse_endpoint("127.0.0.1:7777"));
    dispatcher.set_listener(listener.get());
    const auto self = dispatcher.publish({});
    CHECK(self.listener_cookie() == socket_cookie(listener.get()));
    listener = Fd();
    CHECK(eventually([&] { return self.listener_cookie() == 0; }));
}

}  // namespace echo_server
