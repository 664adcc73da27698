// SPDX-License-Identifier: BSD-2-Clause
// The descriptor store of systemd, which keeps ports open from one process of the service to the next. systemd does not
// run here: the test plays its part. scripts/systemd-guest tests the same with a real systemd.
#include <doctest/doctest.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>

#include "support/client.h"
#include "support/server.h"
#include "support/service.h"
#include "support/shown_status.h"

namespace echo_server {

TEST_CASE("store: clients that come between two processes are served by the second") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7,77"});
    CHECK(service.systemd.kinds() == "link, listener");
    SUBCASE("after a stop") { service.stop(); }
    SUBCASE("after a crash") { service.crash(); }
    CHECK(service.systemd.kinds() == "link, listener");
    auto client = new_client(netns, 7);
    auto of_removed_port = new_client(netns, 77);
    service.start({"--ports", "7,9"});
    CHECK(is_served(client));
    CHECK(is_served(of_removed_port));
    CHECK(echoes(netns, "127.0.0.1", 9));
    CHECK(try_connect(netns, "127.0.0.1", 77) == ECONNREFUSED);
    CHECK(service.systemd.kinds() == "listener, link");  // the link of the previous program is gone
    CHECK(service.process->output().find("another sk_lookup program") == std::string::npos);
}

TEST_CASE("store: clients wait while a process drains") {
    const Netns netns;
    Service service(netns);
    auto idle = service.start_with_idle_client();
    service.process->signal(SIGTERM);
    CHECK(service.process->wait_for("stopping") ==
          "stopping: new connections wait for the next start; waiting up to 3600 s for 1 connection");
    auto client = new_client(netns, 7);
    idle.shutdown_write();
    CHECK(idle.at_end());
    CHECK(service.process->wait() == 0);
    service.start({"--ports", "7"});
    CHECK(is_served(client));
}

TEST_CASE("store: a start that is stopped leaves the store to the next process") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    const auto result = run(netns, echo_server({"--ports", "7"}), [&] {
        service.systemd.start_with_store();
        sigset_t stop;
        ::sigemptyset(&stop);
        ::sigaddset(&stop, SIGTERM);
        ::sigprocmask(SIG_BLOCK, &stop, nullptr);
        ::raise(SIGTERM);
    });
    CHECK(result.output == "echo-server: stopped by a signal before the start was complete\n");
    auto client = new_client(netns, 7);
    service.start({"--ports", "7"});
    CHECK(is_served(client));
}

TEST_CASE("store: another --listen makes a new socket") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    service.start({"--ports", "7", "--listen", "0.0.0.0:8888"});
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(echoes(netns, "127.0.0.1", 8888));
    CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
    CHECK(service.systemd.kinds() == "link, listener");
    service.stop();
    auto client = new_client(netns, 7);
    service.start({"--ports", "7", "--listen", "0.0.0.0:0"});  // any port will do: the socket stays
    CHECK(is_served(client));
}

TEST_CASE("store: another --listen may overlap with the old socket, or leave its port to the list") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    service.start({"--ports", "7", "--listen", "0.0.0.0:7777"});
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(service.systemd.kinds() == "link, listener");
    service.stop();
    service.start({"--ports", "7,7777", "--listen", "0.0.0.0:8888"});
    CHECK(echoes(netns, "127.0.0.1", 7777));
}

TEST_CASE("store: a unit that has no store any more uses the descriptors that it gets, and does not keep them") {
    const Netns netns;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    auto client = new_client(netns, 7);
    const Server server(netns, {"--ports", "9"}, [&] {
        service.systemd.start_with_store();
        ::unsetenv("FDSTORE");
    });
    CHECK(is_served(client));
    service.systemd.wait_for("READY=1");
    CHECK(service.systemd.kinds() == "listener");
    CHECK(count_links(netns) == 1);
}

TEST_CASE("store: status says that new connections wait") {
    const Netns netns;
    Service service(netns);
    auto idle = service.start_with_idle_client();
    CHECK(only_status(netns)["state"] == "serving");
    service.process->signal(SIGTERM);
    service.process->wait_for("stopping");
    const auto draining = only_status(netns);
    CHECK(draining["state"] == "waiting");
    CHECK(draining["serving"] == false);
    CHECK(draining["ports"]["list"] == "7");
    idle.shutdown_write();
    CHECK(service.process->wait() == 0);
    CHECK(only_status(netns)["state"] == "waiting");
    CHECK(status_shows(netns, ", which has ended"));
    CHECK(status_shows(netns, ", stopped or draining: new connections wait for the next start"));
}

TEST_CASE("store: descriptors of another network namespace are not used") {
    const Netns netns;
    const Netns other;
    Service service(netns);
    service.start_and_stop({"--ports", "7"});
    const Server server(other, {"--ports", "7"}, [&] { service.systemd.start_with_store(); });
    CHECK(echoes(other, "127.0.0.1", 7));
}

TEST_CASE("store: a new process of root does not take the old program for a running server") {
    const Netns netns;
    Service service(netns);
    service.start({"--ports", "7"});
    service.crash();
    SUBCASE("in a start") { service.start({"--ports", "7"}); }
    SUBCASE("in a start with --replace") { service.start({"--ports", "7", "--replace"}); }
    CHECK(count_links(netns) == 1);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

}  // namespace echo_server
