// SPDX-License-Identifier: BSD-2-Clause
// The descriptor store of systemd, which keeps ports open from one process of the service to the next. systemd does not
// run here: the test plays its part. Under a real systemd scripts/systemd-guest tries the same.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <memory>
#include <string>

#include "support/client.h"
#include "support/server.h"
#include "support/service_manager.h"

namespace echo_server {
namespace {

/// A service with a descriptor store, and its processes.
class Service {
 public:
    explicit Service(const Netns& netns) : netns_(netns), systemd(netns) {}

    void start(const Command& arguments) {
        process = std::make_unique<Server>(netns_, arguments, [&] { systemd.start_with_store(); });
        systemd.wait_for("READY=1");
    }
    /// A start that fails; returns its output.
    std::string fail_to_start(const Command& arguments) {
        const auto result = run(netns_, echo_server(arguments), [&] { systemd.start_with_store(); });
        CHECK(result.code == 1);
        systemd.wait_for("STATUS=Failed");
        return result.output;
    }
    void stop() {
        process->signal(SIGTERM);
        CHECK(process->wait() == 0);
        systemd.wait_for("STATUS=Stopped");
    }

 private:
    const Netns& netns_;

 public:
    ServiceManager systemd;
    std::unique_ptr<Server> process;
};

/// A client that connects now; it is served later.
Client newcomer(const Netns& netns, std::uint16_t port) {
    Client client(netns, "127.0.0.1", port);
    client.send("hello");
    return client;
}

bool is_served(Client& client) {
    if (client.receive(5) != "hello") return false;
    client.shutdown_write();
    return client.at_end();
}

}  // namespace

TEST_CASE("store: clients that come between two processes are served by the second") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7,77"});
    CHECK(service.systemd.kinds() == "link, listener");
    SUBCASE("after a stop") { service.stop(); }
    SUBCASE("after a crash") {
        service.process->signal(SIGKILL);
        CHECK(service.process->wait() == -SIGKILL);
    }
    CHECK(service.systemd.kinds() == "link, listener");
    auto client = newcomer(netns, 7);
    auto of_removed_port = newcomer(netns, 77);
    service.start({"--ports", "7,9"});
    CHECK(is_served(client));
    CHECK(is_served(of_removed_port));
    CHECK(echoes(netns, "127.0.0.1", 9));
    CHECK(try_connect(netns, "127.0.0.1", 77) == ECONNREFUSED);
    CHECK(service.systemd.kinds() == "listener, link");  // of the program before, nothing is left
    CHECK(service.process->output().find("another sk_lookup program") == std::string::npos);
}

TEST_CASE("store: clients wait while a process drains") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7", "--drain-timeout", "3600"});
    auto idle = newcomer(netns, 7);
    CHECK(idle.receive(5) == "hello");
    service.process->signal(SIGTERM);
    CHECK(service.process->wait_for("stopping") ==
          "stopping: newcomers wait for the next start; waiting up to 3600 s for 1 connection");
    auto client = newcomer(netns, 7);
    idle.shutdown_write();
    CHECK(idle.at_end());
    CHECK(service.process->wait() == 0);
    service.start({"--ports", "7"});
    CHECK(is_served(client));
}

TEST_CASE("store: once systemd has closed what is there, nothing is left") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.stop();
    const auto client = newcomer(netns, 7);
    service.systemd.stored.clear();
    CHECK(eventually([&] { return try_connect(netns, "127.0.0.1", 7) == ECONNREFUSED; }));
    CHECK(eventually([&] { return nothing_left(netns); }));
}

TEST_CASE("store: a start that fails leaves nothing open that nobody serves") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.stop();
    CHECK(service.fail_to_start({"--ports-file", "/nowhere"}).find("/nowhere") != std::string::npos);
    CHECK(service.systemd.stored.empty());
    CHECK(eventually([&] { return nothing_left(netns); }));
    service.start({"--ports", "7"});
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("store: a server whose program was detached ends, and leaves nothing") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    run_ok(netns, {"bpftool", "link", "detach", "id", BpfObjects(netns).link});
    service.process->signal(SIGHUP);
    CHECK(service.process->wait() == 1);
    service.systemd.wait_for("STATUS=Failed: SIGHUP: the BPF program was detached");
    CHECK(service.systemd.stored.empty());
}

TEST_CASE("store: a start that is stopped leaves the next process what is there") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.stop();
    const auto result = run(netns, echo_server({"--ports", "7"}), [&] {
        service.systemd.start_with_store();
        sigset_t stop;
        ::sigemptyset(&stop);
        ::sigaddset(&stop, SIGTERM);
        ::sigprocmask(SIG_BLOCK, &stop, nullptr);
        ::raise(SIGTERM);
    });
    CHECK(result.output == "echo-server: stopped by a signal before the start was complete\n");
    auto client = newcomer(netns, 7);
    service.start({"--ports", "7"});
    CHECK(is_served(client));
}

TEST_CASE("store: another --listen makes a new socket") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.stop();
    service.start({"--ports", "7", "--listen", "0.0.0.0:8888"});
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(echoes(netns, "127.0.0.1", 8888));
    CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
    CHECK(service.systemd.kinds() == "link, listener");
    service.stop();
    auto client = newcomer(netns, 7);
    service.start({"--ports", "7", "--listen", "0.0.0.0:0"});  // any port will do: the socket stays
    CHECK(is_served(client));
}

TEST_CASE("store: of another network namespace, nothing is used") {
    const Netns netns;
    const Netns other;
    Service service(netns);
    service.start({"--ports", "7"});
    service.stop();
    Server server(other, {"--ports", "7"}, [&] { service.systemd.start_with_store(); });
    CHECK(echoes(other, "127.0.0.1", 7));
}

TEST_CASE("store: a server that is replaced keeps nothing there") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    const Server new_server(netns, {"--ports", "7", "--replace"});
    service.systemd.wait_for("STATUS=Replaced");
    CHECK(service.systemd.stored.empty());
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("store: root's new process does not take the old program for a server that runs") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.process->signal(SIGKILL);
    CHECK(service.process->wait() == -SIGKILL);
    SUBCASE("in a start") { service.start({"--ports", "7"}); }
    SUBCASE("in a start with --replace") { service.start({"--ports", "7", "--replace"}); }
    CHECK(count_links(netns) == 1);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
