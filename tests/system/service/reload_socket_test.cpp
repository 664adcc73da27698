// SPDX-License-Identifier: BSD-2-Clause
// The socket by which a server answers 'echo-server reload': who waits there, and what others do to it.
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

#include "base/fd.h"
#include "support/bpffs.h"
#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"

namespace echo_server {

namespace {

// A server whose reload hangs until let_go().
class HangingServer {
 public:
    HangingServer(const Netns& netns, const TempFile& file)
        : flag_(file.path() + ".hang"),
          server(netns, {"--ports-file", file.path(), "--threads", "1"}, [&] { hang_at(file.path()); }) {
        std::ofstream(flag_).close();
        server.signal(SIGHUP);
        REQUIRE(eventually([&] { return std::filesystem::remove(file.path() + ".hangs"); }));
        descriptors_ = descriptors_of(server);
    }
    ~HangingServer() { let_go(); }
    HangingServer(const HangingServer&) = delete;
    HangingServer& operator=(const HangingServer&) = delete;

    // Whether so many commands wait for an answer.
    [[nodiscard]] bool has_waiting(std::ptrdiff_t commands) const {
        return eventually([&] { return descriptors_of(server) == descriptors_ + commands; });
    }
    void let_go() const { std::filesystem::remove(flag_); }

 private:
    std::string flag_;
    std::ptrdiff_t descriptors_ = 0;

 public:
    Server server;
};

// The address of the only server's socket for commands, and its size.
std::pair<sockaddr_un, socklen_t> address_of_socket() {
    std::ifstream file("/proc/thread-self/net/unix");
    for (std::string line; std::getline(file, line);) {
        const auto at = line.find("@echo-server/");
        if (at == std::string::npos || line.find(" 00010000 ") == std::string::npos) continue;
        const auto name = line.substr(at + 1);
        sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
        name.copy(address.sun_path + 1, name.size());
        return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
    }
    FAIL("no server listens for commands");
    return {};
}

// Connects to the server as another user does who knows the protocol, so many times at once.
std::list<Fd> connect_as(uid_t user, const Netns& netns, int count) {
    std::list<Fd> sockets;
    std::thread([&] {  // the bare system call changes the user of this thread alone
        const Netns::Entered entered(netns);
        const auto [address, size] = address_of_socket();
        if (::syscall(SYS_setresuid, -1, user, -1) != 0) std::abort();
        for (int i = 0; i < count; ++i) {
            Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
            char greeting = 0;
            if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
                ::recv(socket.get(), &greeting, 1, 0) == 1)
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

TEST_CASE("reload command: one that comes during a reload waits for the next") {
    const Netns netns;
    const TempFile file("7\n");
    HangingServer hanging(netns, file);
    const TempFile next("7,9\n");
    std::filesystem::rename(next.path(), file.path());  // the running reload has opened the old one
    Process command(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(1));
    hanging.let_go();
    CHECK(hanging.server.next_line() == fmt::format("reloaded {}: nothing changed; 1 port open", file.path()));
    CHECK(command.wait() == 0);
    CHECK(command.output() == fmt::format("reloaded {}: added 9; removed none; 2 ports open\n", file.path()));
}

TEST_CASE("reload command: who may not reload gets no word of the ports file by the socket") {
    const Netns netns;
    const TempFile file("7\n");
    Server server(netns, {"--ports-file", file.path()});
    file.write("a secret\n");
    const auto strangers = connect_as(ordinary_user, netns, 1);
    const auto users = connect_as(nobody, netns, 1);
    server.reload();
    CHECK(read_all(strangers.front()) == "-");
    CHECK(read_all(users.front()).find("'a secret'") != std::string::npos);
}

TEST_CASE("reload command: a stop answers those who wait; after that, it finds the successor") {
    const Netns netns;
    const TempFile file("7\n");
    const HangingServer hanging(netns, file);
    Client client(netns, "127.0.0.1", 7);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    Process command_in_a_stop(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(2));  // the client is one
    const Server successor(netns, {"--ports-file", file.path(), "--replace"});
    CHECK(command_in_a_stop.wait() == 1);
    CHECK(command_in_a_stop.output() == "echo-server: SIGHUP: the server is stopping; nothing is reloaded\n");
    CHECK(run(netns, echo_server({"reload"})).code == 0);
    CHECK(run(netns, echo_server({"reload", std::to_string(successor.pid())})).code == 0);
    CHECK(run(netns, echo_server({"reload", std::to_string(hanging.server.pid())})).code == 1);
}

TEST_CASE("reload command: a flood of connections by others pushes out none that waits, nor costs descriptors") {
    const Netns netns;
    const TempFile file("7\n");
    const HangingServer hanging(netns, file);
    Process command(netns, echo_server({"reload"}));
    REQUIRE(hanging.has_waiting(1));
    const auto flood = connect_as(ordinary_user, netns, 1000);
    CHECK(flood.size() == 1000);
    CHECK(hanging.has_waiting(8));
    hanging.let_go();
    CHECK(command.wait() == 0);
    CHECK(run(netns, echo_server({"reload"})).code == 0);
    CHECK(echoes(netns, "127.0.0.1", 7));
}

TEST_CASE("reload command: of too many that wait, the oldest is told to try again") {
    const Netns netns;
    const TempFile file("7\n");
    HangingServer hanging(netns, file);
    const auto sockets = connect_as(0, netns, 9);
    CHECK(read_all(sockets.front()) == "-too many commands wait for a reload: try again");
    hanging.let_go();
    hanging.server.reload();
    for (const auto& socket : sockets)
        if (&socket != &sockets.front()) CHECK(read_all(socket).starts_with("+reloaded "));
}

TEST_CASE("reload command: what another program says in place of a server moves no signal to a third") {
    const Netns netns;
    // Its parent has the PID that the kernel tells of the socket.
    const Process pretender(netns, {"sleep", "3600"}, [] {
        constexpr std::string_view name = "echo-server/0";
        sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
        name.copy(address.sun_path + 1, name.size());
        const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
        const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), size) != 0 || ::listen(listener, 1) != 0)
            std::abort();
        go_on_in_child();
        const int command = ::accept(listener, nullptr, nullptr);
        if (::send(command, "\n", 1, 0) != 1) std::abort();
    });
    std::string output;
    REQUIRE(eventually([&] {
        output = run(netns, echo_server({"reload"})).output;
        return output.find("no echo-server runs") == std::string::npos;
    }));
    CHECK(output.ends_with(fmt::format(" answers in place of process {}: it is no echo-server\n", pretender.pid())));
    siginfo_t ended{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(pretender.pid()), &ended, WEXITED | WNOHANG | WNOWAIT) == 0);
    CHECK(ended.si_pid == 0);  // SIGHUP would have killed it
}

}  // namespace echo_server
