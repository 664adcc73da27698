// SPDX-License-Identifier: BSD-2-Clause
// Other sk_lookup programs in the same network namespace, and other namespaces.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <doctest/doctest.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <optional>
#include <string>

#include "other_lookup.skel.h"
#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {

namespace {

using enum NamedServer::Protocol;

/// A foreign program: it takes `port` for `socket`, or drops its packets if there is no socket. The destructor
/// detaches it.
class OtherProgram {
 public:
    OtherProgram(const Netns& netns, std::uint16_t port, const NamedServer* server)
        : skeleton_(other_lookup_bpf::open()) {
        REQUIRE(skeleton_);
        skeleton_->rodata->port = port;
        REQUIRE(other_lookup_bpf::load(skeleton_.get()) == 0);
        if (server != nullptr) {
            const __u32 key = 0;
            const auto value = static_cast<__u64>(server->fd());
            REQUIRE(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.other_socket), &key, &value, BPF_ANY) == 0);
        }
        link_.reset(bpf_program__attach_netns(skeleton_->progs.other_lookup, netns.fd()));
        REQUIRE(link_);
    }

 private:
    struct Destroy {
        void operator()(other_lookup_bpf* skeleton) const { other_lookup_bpf::destroy(skeleton); }
        void operator()(bpf_link* link) const { bpf_link__destroy(link); }
    };
    std::unique_ptr<other_lookup_bpf, Destroy> skeleton_;
    std::unique_ptr<bpf_link, Destroy> link_;
};

std::string who(const Network& network, std::uint16_t port) {
    const auto ip4 = who_answers(network.host, tcp, Network::vm_ip4, port);
    const auto ip6 = who_answers(network.host, tcp, Network::vm_ip6, port);
    return ip4 == ip6 ? ip4 : ip4 + " on IPv4, " + ip6 + " on IPv6";
}

}  // namespace

TEST_CASE("lookup: another program's ports stay its own, whether it was attached before ours or after") {
    const Network network;
    const NamedServer other(network.vm, tcp, "::", 9999, "other");
    std::optional<OtherProgram> program;
    SUBCASE("before") {
        program.emplace(network.vm, 77, &other);
        Server server(network.vm, {"--ports", "7"});
        CHECK(who(network, 7) == "echo");
        CHECK(who(network, 77) == "other");
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
        CHECK(who(network, 7) == "nobody");
        CHECK(who(network, 77) == "other");
    }
    SUBCASE("after") {
        const Server server(network.vm, {"--ports", "7"});
        program.emplace(network.vm, 77, &other);
        CHECK(who(network, 7) == "echo");
        CHECK(who(network, 77) == "other");
        program.reset();
        CHECK(who(network, 7) == "echo");
        CHECK(who(network, 77) == "nobody");
    }
}

TEST_CASE("lookup: of two programs for one port the last attached has it, and after its end the first again") {
    const Network network;
    const NamedServer other(network.vm, tcp, "::", 9999, "other");
    const std::optional<OtherProgram> program(std::in_place, network.vm, 7, &other);
    Server server(network.vm, {"--ports", "7,77"});
    CHECK(who(network, 7) == "echo");
    const OtherProgram last(network.vm, 77, &other);
    CHECK(who(network, 77) == "other");
    CHECK(status_shows(network.vm, "\n  ports        2 open: 7,77\n"));
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
    CHECK(who(network, 7) == "other");
}

TEST_CASE("lookup: a start as root reports another attached program, but not an echo-server's") {
    const Netns netns;
    const std::string line =
        "echo-server: another sk_lookup program is attached here, which is not an echo-server's. This one is newer: it "
        "wins where both have a port\n";
    {
        const OtherProgram other(netns, 77, nullptr);
        Server older(netns, {"--ports", "7"});
        CHECK(older.output().starts_with(line));
        Server newer(netns, {"--ports", "7", "--replace"});
        CHECK(newer.output().starts_with(line));
    }
    Server older(netns, {"--ports", "7"});
    CHECK(count(older.output(), "another sk_lookup program") == 0);
    Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(count(newer.output(), "another sk_lookup program") == 0);
}

TEST_CASE("lookup: what another program drops is served all the same") {
    const Network network;
    const OtherProgram before(network.vm, 7, nullptr);
    const Server server(network.vm, {"--ports", "7,77"});
    const OtherProgram after(network.vm, 77, nullptr);
    CHECK(who(network, 7) == "echo");
    CHECK(who(network, 77) == "echo");
}

TEST_CASE("lookup: two namespaces have an instance each, and neither knows of the other") {
    const Network network;
    Server in_vm(network.vm, {"--ports", "7"});
    const Server in_host(network.host, {"--ports", "77"});
    CHECK(who(network, 7) == "echo");
    CHECK(who(network, 77) == "nobody");
    CHECK(who_answers(network.vm, tcp, Network::host_ip4, 77) == "echo");
    CHECK(who_answers(network.vm, tcp, Network::host_ip6, 7) == "nobody");
    const auto status = run_ok(network.host, echo_server({"status"}));
    CHECK(status.find("\n  ports        1 open: 77\n") != std::string::npos);
    CHECK(status.find("process " + std::to_string(in_vm.pid()) + ",") == std::string::npos);
    in_vm.signal(SIGKILL);
    in_vm.wait();
    CHECK(who_answers(network.vm, tcp, Network::host_ip4, 77) == "echo");
}

TEST_CASE("lookup: a server starts while somebody is making another link, in any namespace") {
    const Netns netns;
    const Netns elsewhere;
    const Server other(elsewhere, {"--ports", "7"});
    const Server server(netns, {"--ports", "7"}, [] { refuse_system_call(SYS_bpf, BPF_LINK_GET_FD_BY_ID, EAGAIN); });
    CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
