// SPDX-License-Identifier: BSD-2-Clause
// The socket by which a server answers 'echo-server reload': commands that wait there, and misuse by other programs.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/os.h"
#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/storm.h"

namespace echo_server {

namespace {

// The lines of /proc/net/unix that have the name of a server: its listening socket, and connections to it.
std::list<std::string> sockets_of_servers(const Netns& netns) {
    std::list<std::string> lines;
    std::thread([&] {
        const Netns::Entered entered(netns);
        std::ifstream file("/proc/thread-self/net/unix");
        for (std::string line; std::getline(file, line);)
            if (line.find("@echo-server/") != std::string::npos) lines.push_back(line);
    }).join();
    return lines;
}

// A server whose reload hangs until let_go().
class HangingServer {
 public:
    HangingServer(const Netns& netns, const TempFile& file)
        : netns_(netns),
          flag_(file.path() + ".hang"),
          server(netns, {"--ports-file", file.path(), "--threads", "1"}, [&] { hang_at(file.path()); }) {
        std::ofstream(flag_).close();
        server.signal(SIGHUP);
        REQUIRE(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
    }
    ~HangingServer() { let_go(); }
    HangingServer(const HangingServer&) = delete;
    HangingServer& operator=(const HangingServer&) = delete;

    // Whether so many commands wait for an answer.
    [[nodiscard]] bool has_waiting(std::size_t commands) const {
        return eventually([&] { return sockets_of_servers(netns_).size() == 1 + commands; });
    }
    void let_go() const { std::filesystem::remove(flag_); }

 private:
    const Netns& netns_;
    std::string flag_;

 public:
    Server server;
};

// The address of the only server's socket for commands, and its size.
using Address = std::pair<sockaddr_un, socklen_t>;
Address address_of_socket(const Netns& netns) {
    for (const auto& line : sockets_of_servers(netns)) {
        if (line.find(" 00010000 ") == std::string::npos) continue;
        const auto name = line.substr(line.find('@') + 1);
        sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
        name.copy(address.sun_path + 1, name.size());
        return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
    }
    FAIL("no server listens for commands");
    return {};
}

// Connects to the server as a program of this user does, so many times at once.
std::list<Fd> connect_as(uid_t user, const Netns& netns, const Address& to, int count) {
    std::list<Fd> sockets;
    std::thread([&] {  // the bare system call changes the user of this thread alone
        const Netns::Entered entered(netns);
        if (::syscall(SYS_setresuid, -1, user, -1) != 0) std::abort();
        for (int i = 0; i < count; ++i) {
            Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
            if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to.first), to.second) == 0)
                sockets.push_back(std::move(socket));
        }
        ::syscall(SYS_setresuid, -1, 0, -1);  // it has to leave the namespace
    })
        .join();
    return sockets;
}

std::string read_all(const Fd& socket) {
    std::string text;
    std::array<char, 4096> buffer;
    for (ssize_t size = 0; (size = ::recv(socket.get(), buffer.data(), buffer.size(), 0)) > 0;)
        text.append(buffer.data(), static_cast<std::size_t>(size));
    return text;
}

}  // namespace

TEST_CASE("reload command: a command during a reload waits for the next reload") {
    const Netns netns;
    const TempFile file("7\n");
    HangingServer hanging(netns, file);
    const TempFile next("7,9\n");
    std::filesystem::rename(next.path(), file.path());  // the running reload has opened the old file
    Process command(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(1));
    hanging.let_go();
    CHECK(hanging.server.next_line() == fmt::format("reloaded {}: nothing changed; 1 port open", file.path()));
    CHECK(command.wait() == 0);
    CHECK(command.output() == fmt::format("reloaded {}: added 9; removed none; 2 ports open\n", file.path()));
}

TEST_CASE("reload command: a user who may not reload gets an error at once, and nothing is reloaded") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()});
    file.write("a secret\n");
    const auto address = address_of_socket(netns);
    CHECK(read_all(connect_as(ordinary_user, netns, address, 1).front()) ==
          "-reloading this server: only root and the server's own user may do that");
    CHECK(server.output().find("secret") == std::string::npos);
    CHECK(read_all(connect_as(nobody, netns, address, 1).front()).find("'a secret'") != std::string::npos);
}

TEST_CASE("reload command: a server that stops answers waiting commands; new commands find the successor") {
    const Netns netns;
    const TempFile file("7\n");
    const HangingServer hanging(netns, file);
    const Client held = connected(netns, 7);
    Process command_in_a_stop(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(1));
    const TempFile of_successor("7\n");
    const Server successor(netns, {"--ports-file", of_successor.path(), "--replace"});
    REQUIRE(eventually([&] { return run(netns, echo_server({"reload"})).code == 0; }));
    CHECK(run(netns, echo_server({"reload", std::to_string(successor.pid())})).code == 0);
    CHECK(run(netns, echo_server({"reload", std::to_string(hanging.server.pid())})).code == 1);
    hanging.let_go();
    CHECK(command_in_a_stop.wait() == 1);
    CHECK(command_in_a_stop.output() == "echo-server: reload: the server is stopping; nothing is reloaded\n");
}

TEST_CASE("reload command: a flood of connections of other users delays no command, and costs no descriptors") {
    const Netns netns;
    const TempFile file("7\n");
    HangingServer hanging(netns, file);
    Process command(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(1));
    const auto descriptors = descriptors_of(hanging.server);
    const auto address = address_of_socket(netns);
    const auto waiting = connect_as(ordinary_user, netns, address, 1000);
    CHECK(waiting.size() == 1000);
    CHECK(descriptors_of(hanging.server) == descriptors);
    hanging.let_go();
    CHECK(command.wait() == 0);

    const Storm flood([&] { connect_as(ordinary_user, netns, address, 100); });
    for (int i = 0; i < 10; ++i) {
        CHECK(run(netns, echo_server({"reload"})).code == 0);
        hanging.server.signal(SIGUSR2);
        hanging.server.wait_for("SIGUSR2");
        CHECK(echoes(netns, "127.0.0.1", 7));
    }
}

TEST_CASE("reload command: a flood of commands that read no answer leaves time for clients, signals and a stop") {
    const Netns netns;
    const TempFile file("1-30000,!7777\n");
    Server server(netns, {"--ports-file", file.path(), "--threads", "1"});
    const auto address = address_of_socket(netns);
    const auto unread = connect_as(0, netns, address, 100);
    const Storm flood([&] { connect_as(0, netns, address, 1); });
    for (int i = 0; i < 100; ++i) CHECK(echoes(netns, "127.0.0.1", 7));
    server.signal(SIGUSR2);
    server.wait_for("SIGUSR2");
    server.signal(SIGTERM);
    CHECK(server.wait() == 0);
}

TEST_CASE("reload command: a socket of another process under the server's name is ignored") {
    const Netns netns;
    const TempFile file("7\n");
    const Server server(netns, {"--ports-file", file.path()});
    const auto name = fmt::format("echo-server/{}/0", server.pid());
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    name.copy(address.sun_path + 1, name.size());
    const Fd other = [&] {
        const Netns::Entered entered(netns);
        return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    }();
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    REQUIRE(::bind(other.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(other.get(), 1) == 0);
    for (int i = 0; i < 3; ++i)  // then its backlog is full
        CHECK(run_ok(netns, echo_server({"reload", std::to_string(server.pid())})) ==
              fmt::format("reloaded {}: nothing changed; 1 port open\n", file.path()));
}

}  // namespace echo_server
