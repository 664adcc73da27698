// SPDX-License-Identifier: BSD-2-Clause
// Clients must not take away the ports from which the host itself connects.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <list>
#include <optional>
#include <string>

#include "net/sockets.h"
#include "support/client.h"
#include "support/server.h"
#include "support/skip.h"

namespace echo_server {

namespace {

constexpr std::uint16_t first_local = 40000;
constexpr std::uint16_t last_local = 40031;
constexpr auto elsewhere_ip4 = "192.0.2.8";
constexpr auto elsewhere_ip6 = "2001:db8::8";

/// The server's machine has few local ports. The other machine has a service, at other addresses than the attacker's.
class Scene {
 public:
    Scene() {
        set_sysctl(network.vm, "net/ipv4/ip_local_port_range", fmt::format("{} {}", first_local, last_local));
        run_ok(network.host, {"ip", "address", "add", fmt::format("{}/24", elsewhere_ip4), "dev", "to-vm"});
        // Without preferred_lft the attacker would connect from that address.
        run_ok(network.host, {"ip", "address", "add", fmt::format("{}/64", elsewhere_ip6), "dev", "to-vm", "nodad",
                              "preferred_lft", "0"});
        service_.emplace(network.host, NamedServer::Protocol::tcp, "::", 9000, "elsewhere");
    }

    /// A client on each open port of the range.
    [[nodiscard]] std::list<Client> attack(const std::string& address) const {
        std::list<Client> clients;
        for (auto port = first_local; port <= last_local; ++port) {
            Client client(network.host, address, port);
            client.send("x");
            if (client.receive(1) == "x") clients.push_back(std::move(client));
        }
        return clients;
    }

    /// What still works on the server's machine: errno of connect() on each family and of bind() to port 0.
    [[nodiscard]] std::string outcome() const {
        return fmt::format("{} {} {}", try_connect(network.vm, elsewhere_ip4, 9000),
                           try_connect(network.vm, elsewhere_ip6, 9000), bind_any());
    }

    /// From now on the attacker can send, but receives nothing from the server, and so acknowledges nothing.
    void cut_off_attacker() const {
        for (const std::string address : {Network::host_ip4, Network::host_ip6})
            run_ok(network.vm, {"ip", "neighbour", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", "to-host",
                                "nud", "permanent"});
    }

    [[nodiscard]] std::size_t in_last_ack() const {
        return count(run_ok(network.vm, {"ss", "-Htn", "state", "last-ack"}), "\n");
    }

    Network network;

 private:
    [[nodiscard]] int bind_any() const {
        const Netns::Entered entered(network.vm);
        const Fd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in6 any{};
        any.sin6_family = AF_INET6;
        return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)) == 0 ? 0 : errno;
    }

    std::optional<NamedServer> service_;
};

const std::string all_work = "0 0 0";
const std::string none_works = fmt::format("{0} {0} {1}", EADDRNOTAVAIL, EADDRINUSE);

}  // namespace

TEST_CASE("ephemeral: with every port in a list clients can't stop the host from connecting") {
    const Scene scene;
    const auto& vm = scene.network.vm;
    for (const std::string address : {Network::vm_ip4, Network::vm_ip6}) {
        CAPTURE(address);
        {
            Server server(vm, {"--ports", "1-65535", "--max-connections", "100"});
            CHECK(server.output().find("; left out: 40000-40031 (the host's own ports)\n") != std::string::npos);
            CHECK(scene.attack(address).empty());
            CHECK(scene.outcome() == all_work);
        }
        // As many as a list can open.
        const Server server(vm, {"--ports", "1-65535,40000-40015", "--max-connections", "100"});
        CHECK(scene.attack(address).size() == 16);
        CHECK(scene.outcome() == all_work);
        const auto clients = scene.attack(address);
        CHECK(clients.size() == 16);
        CHECK(scene.outcome() == all_work);
    }
}

TEST_CASE("ephemeral: the same with clients that send FIN and acknowledge nothing") {
    for (const std::string address : {Network::vm_ip4, Network::vm_ip6}) {
        CAPTURE(address);
        const Scene scene;
        const auto& vm = scene.network.vm;
        const Server server(vm, {"--ports", "1-65535,40000-40015", "--max-connections", "100"});
        auto clients = scene.attack(address);
        CHECK(clients.size() == 16);
        scene.cut_off_attacker();
        for (auto& client : clients) client.shutdown_write();
        CHECK(eventually([&] { return scene.in_last_ack() == 16 && status_shows(vm, "  connections  0 open of "); }));
        CHECK(scene.outcome() == all_work);
        CHECK(scene.in_last_ack() == 16);
    }
}

TEST_CASE("ephemeral: --allow-ephemeral opens all, and clients then can stop the host from connecting") {
    // This shows that the tests above can fail, and that the rule is still needed.
    for (const std::string address : {Network::vm_ip4, Network::vm_ip6}) {
        CAPTURE(address);
        const Scene scene;
        const auto& vm = scene.network.vm;
        const Server server(vm, {"--ports", "1-65535", "--max-connections", "100", "--allow-ephemeral"});
        CHECK(scene.outcome() == all_work);
        auto clients = scene.attack(address);
        CHECK(clients.size() == 32);
        CHECK(scene.outcome() == none_works);
        scene.cut_off_attacker();
        for (auto& client : clients) client.shutdown_write();
        CHECK(eventually([&] { return scene.in_last_ack() == 32 && status_shows(vm, "  connections  0 open of "); }));
        CHECK(scene.outcome() == none_works);
    }
}

TEST_CASE("ephemeral: a list of all these ports fails also with --address, --shadow-listeners or --replace") {
    const Netns netns;
    const Command arguments{"--ports", "32768-60999"};
    for (const Command& more : {Command{"--address", "192.0.2.0/24"}, {"--shadow-listeners"}, {"--replace"}}) {
        CAPTURE(more.front());
        std::optional<Server> server;
        if (more.front() == "--replace") server.emplace(netns, Command{"--ports", "7"});
        auto command = arguments;
        command.insert(command.end(), more.begin(), more.end());
        const auto [code, output] = run(netns, echo_server(command));
        CHECK(code == 1);
        CHECK(output.find(": leave 1024 more out, or pass --allow-ephemeral") != std::string::npos);
        CHECK(echoes(netns, "127.0.0.1", 7) == server.has_value());
    }
}

TEST_CASE("ephemeral: the same by SIGHUP, where the old ports stay") {
    const Netns netns;
    const TempFile file("7\n");
    {
        Server server(netns, {"--ports-file", file.path()});
        file.write("7,32768-60999\n");
        const auto refusal = server.reload();
        CHECK(refusal.starts_with("echo-server: too few of ports 32768-60999 stay closed: "));
        CHECK(refusal.ends_with("; the ports stay as they are"));
        CHECK(echoes(netns, "127.0.0.1", 7));
        CHECK(try_connect(netns, "127.0.0.1", 32768) == ECONNREFUSED);
        file.write("1-65535\n");
        CHECK(server.reload() ==
              fmt::format("reloaded {}: added 1-6,8-32767,61000-65535; removed none; 37303 ports open; left out: "
                          "32768-60999 (the host's own ports)",
                          file.path()));
        // The whole list counts, not only the added ports.
        file.write("1-65535,32768-59000\n");
        CHECK(server.reload().ends_with("; 63536 ports open; left out: 59001-60999 (the host's own ports)"));
        file.write("1-65535,32768-59000,60000-60999\n");
        CHECK(server.reload().find(": leave 25 more out, ") != std::string::npos);
    }
    file.write("7\n");
    Server server(netns, {"--ports-file", file.path(), "--allow-ephemeral"});
    file.write("1-65535\n");
    CHECK(server.reload().ends_with("; 65535 ports open"));
}

TEST_CASE("ephemeral: reserved ports do not count as the host's own, however many") {
    const Netns netns;
    std::string odd;
    for (int port = 32769; port <= 60999; port += 2) odd += fmt::format("{}{}", odd.empty() ? "" : ",", port);
    set_sysctl(netns, "net/ipv4/ip_local_reserved_ports", odd);
    CHECK(run_ok(netns, echo_server({"--ports", "1-65535", "--check"}))
              .ends_with(",32796,32798 and 14100 more (the host's own ports)\n"));
    CHECK(run(netns, echo_server({"--ports", "32768-60999", "--check"})).output.find(": leave 1024 more out") !=
          std::string::npos);
}

TEST_CASE("ephemeral: where the sysctls are hidden, the kernel's default range counts, and other lists work") {
    if (!possible_in_child(leave_mount_namespace)) return;
    const Netns netns;
    set_sysctl(netns, "net/ipv4/ip_local_port_range", "40000 40031");
    const auto hide_sysctls = [] {
        if (!leave_mount_namespace() || ::mount("proc", "/proc", "proc", 0, "subset=pid") != 0) ::_exit(1);
    };
    const auto [code, output] = run(netns, echo_server({"--ports", "32768-60999"}), hide_sysctls);
    CHECK(code == 1);
    CHECK(output.starts_with("echo-server: too few of ports 32768-60999 stay closed: "));
    const Server server(netns, {"--ports", "7,40000-40031"}, hide_sysctls);
    CHECK(echoes(netns, "127.0.0.1", 40000));
}

TEST_CASE("ephemeral: programs that listen on a port of the kernel's choice lose no client") {
    const Netns netns;
    const auto listen_anywhere = [&](std::list<NamedServer>& programs) {
        for (int i = 0; i < 100; ++i) programs.emplace_back(netns, NamedServer::Protocol::tcp, "0.0.0.0", 0, "program");
    };
    std::list<NamedServer> before;
    listen_anywhere(before);
    const Server server(netns, {"--ports", "1-65535"});
    std::list<NamedServer> after;
    listen_anywhere(after);
    for (const auto* programs : {&before, &after})
        for (const auto& program : *programs)
            CHECK(who_answers(netns, NamedServer::Protocol::tcp, "127.0.0.1", local_endpoint(program.fd()).port()) ==
                  "program");
    CHECK(status_shows(netns, "  attempts     0 in all"));
    CHECK(echoes(netns, "127.0.0.1", 65535));
}

}  // namespace echo_server
