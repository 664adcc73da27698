// SPDX-License-Identifier: BSD-2-Clause
// Changes that others make to the listening socket, before or after it is passed on.
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <list>
#include <string>

#include "base/fd.h"
#include "net/address.h"
#include "net/listener.h"
#include "support/child.h"
#include "support/client.h"
#include "support/server.h"
#include "support/service.h"

namespace echo_server {

namespace {

int int_option(const Fd& socket, int level, int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    return ::getsockopt(socket.get(), level, name, &value, &size) == 0 ? value : -1;
}

Fd open_in(const Netns& netns) {
    const Netns::Entered entered(netns);
    return open_listener(parse_endpoint("127.0.0.1:7777"));
}

/// Passes a socket as systemd does. Call it in the child.
void pass(const Fd& socket) {
    constexpr int first = 3;  // sd_listen_fds(3)
    if (::dup2(socket.get(), first) != first || ::setenv("LISTEN_FDS", "1", 1) != 0 ||
        ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1) != 0)
        std::abort();
}

void destroy_listener(const Netns& netns) { run_ok(netns, {"ss", "-K", "-tl", "sport = 7777"}); }

}  // namespace

TEST_CASE("listener: a server whose listener was destroyed from outside says so, and ends") {
    const Netns netns;
    for (const auto* threads : {"1", "3"}) {
        CAPTURE(threads);
        Server server(netns, {"--ports", "7", "--threads", threads});
        const BpfObjects objects(netns);
        std::list<Client> clients;
        for (int i = 0; i < 5; ++i) {
            clients.emplace_back(netns, "127.0.0.1", 7).send("x");
            REQUIRE(clients.back().receive(1) == "x");
        }
        destroy_listener(netns);
        CHECK(server.wait() == 1);
        CHECK(server.output().ends_with(
            "\necho-server: the listening socket was destroyed from outside (for example by 'ss -K'): the ports "
            "are closed. The "
            "server ends, so that it can be started anew\n"));
        CHECK(objects.gone());
    }
}

TEST_CASE("listener: options of a passed or taken socket that would hold up connections are reset") {
    const Netns netns;
    const Fd socket = open_in(netns);
    const auto set = [&] {
        const linger wait{.l_onoff = 1, .l_linger = 5};
        const int on = 1;
        const int much = 1000;
        REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &wait, sizeof(wait)) == 0);
        REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVLOWAT, &much, sizeof(much)) == 0);
        REQUIRE(::setsockopt(socket.get(), IPPROTO_TCP, TCP_CORK, &on, sizeof(on)) == 0);
        REQUIRE(::setsockopt(socket.get(), IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof(on)) == 0);
    };
    const auto check = [&] {
        linger wait{.l_onoff = 1, .l_linger = 5};
        socklen_t size = sizeof(wait);
        REQUIRE(::getsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &wait, &size) == 0);
        CHECK(wait.l_onoff == 1);  // at an end with bytes owed: a reset, at once
        CHECK(wait.l_linger == 0);
        CHECK(int_option(socket, SOL_SOCKET, SO_RCVLOWAT) == 1);
        CHECK(int_option(socket, IPPROTO_TCP, TCP_CORK) == 0);
        CHECK(int_option(socket, IPPROTO_TCP, TCP_DEFER_ACCEPT) == 0);
        CHECK(echoes(netns, "127.0.0.1", 7));
    };
    set();
    Server passed(netns, {"--ports", "7"}, [&] { pass(socket); });
    check();
    set();
    const Server taken(netns, {"--ports", "7", "--replace"});
    check();
    CHECK(passed.wait() == 0);
}

TEST_CASE("listener: net.core.somaxconn of now is the backlog after a restart, too, and after a replacement") {
    const Netns netns;
    const auto backlog = [&] { return run_ok(netns, {"sh", "-c", "ss -ltnH 'sport = 7777' | awk '{ print $3 }'"}); };
    set_sysctl(netns, "net/core/somaxconn", "100");
    Service service(netns);
    service.start({"--ports", "7"});
    CHECK(backlog() == "100\n");
    set_sysctl(netns, "net/core/somaxconn", "5000");
    service.stop();
    service.start({"--ports", "7"});
    CHECK(backlog() == "5000\n");
    set_sysctl(netns, "net/core/somaxconn", "200");
    const Server newer(netns, {"--ports", "7", "--replace"});
    CHECK(backlog() == "200\n");
}

TEST_CASE("listener: a socket that --replace can't use is not called one of systemd's") {
    const Netns netns;
    const Server older(netns, {"--ports", "7"});
    const auto [code, output] =
        run(netns, echo_server({"--ports", "7", "--replace"}), [] { refuse_system_call(SYS_setsockopt, -1, EPERM); });
    CHECK(code == 1);
    CHECK(output ==
          "echo-server: taking the listening socket of the running echo-server: Operation not permitted; stop "
          "that server, "
          "then start this\n");
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("listener: in a drain, a listener that was destroyed from outside counts as closed") {
    const Netns netns;
    Server server(netns, {"--ports", "7", "--drain-timeout", "3600", "--max-connections", "1"});
    std::list<Client> clients;
    for (int i = 0; i < 2; ++i) clients.emplace_back(netns, "127.0.0.1", 7).send("x");
    REQUIRE(clients.front().receive(1) == "x");
    server.signal(SIGTERM);
    server.wait_for("stopping: the ports are closed");
    destroy_listener(netns);
    clients.clear();
    CHECK(server.wait() == 0);
    CHECK(server.output().ends_with("\nstopped\n"));
}

}  // namespace echo_server
