// SPDX-License-Identifier: BSD-2-Clause
#include "service/reload_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "base/text.h"

using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace echo_server {
namespace {

// Behind it comes a number that nobody can guess, or another user could have the address first.
constexpr std::string_view name_prefix = "echo-server/";

// The first byte of an answer; the text follows, and the end of the connection ends it.
constexpr char success_mark = '+';
constexpr char failure_mark = '-';

constexpr auto longest_wait = 10s;  // ExecReload= has 15

/// An abstract address (unix(7)), which belongs to the network namespace and needs no file.
struct AbstractAddress {
    explicit AbstractAddress(std::string_view name) {
        size += static_cast<socklen_t>(name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1));
    }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }

    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    socklen_t size = offsetof(sockaddr_un, sun_path) + 1;
};

Fd unix_socket() {
    Fd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!made) fail("making a UNIX socket for 'echo-server reload'");
    return made;
}

// Who was at the other end when it called connect(2) or listen(2).
ucred peer_of(const Fd& socket) {
    ucred peer{.pid = 0, .uid = uid_t(-1), .gid = 0};
    socklen_t size = sizeof(peer);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer;
}

}  // namespace

Fd open_reload_socket() {
    std::uint64_t number = 0;
    Fd socket = unix_socket();
    if (::getrandom(&number, sizeof(number), 0) < 0) fail("making a random number");
    const AbstractAddress address(fmt::format("{}{:016x}", name_prefix, number));
    if (::bind(socket.get(), address.get(), address.size) != 0 || ::listen(socket.get(), SOMAXCONN) != 0)
        fail("listening for 'echo-server reload'");
    return socket;
}

Fd accept_reload(int listener, const User& user) {
    errno = 0;
    sockaddr_un address{};
    socklen_t size = sizeof(address);
    Fd command(::accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC));
    // A peer that has a name only asks who listens here: see connect_to().
    if (!command || size > sizeof(sa_family_t)) return {};
    if (const auto peer = peer_of(command).uid; peer == 0 || peer == user.uid) return command;
    answer_reload(command, false, fmt::format("reloading this server: only root and user {} may reload it", user.name));
    return {};
}

void answer_reload(const Fd& command, bool success, std::string_view text) noexcept {
    for (const auto part : {std::string_view(success ? &success_mark : &failure_mark, 1), text}) [[maybe_unused]]
        const auto sent = ::send(command.get(), part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

namespace {

// Their names in /proc/net/unix, where the name ends the line (proc(5)).
std::vector<std::string> names_of_servers() {
    constexpr std::string_view listens = " 00010000 ";
    std::ifstream file("/proc/net/unix");
    if (!file) fail("reading /proc/net/unix");
    std::vector<std::string> names;
    for (std::string line; std::getline(file, line);)
        if (const auto at = line.find(fmt::format(" @{}", name_prefix));
            at != std::string::npos && line.find(listens) < at)
            names.push_back(line.substr(at + 2));
    return names;
}

// Returns nothing, with errno set, if nobody listens there (ECONNREFUSED), or too many connections wait there (EAGAIN).
// A connection from a socket that has a name itself `only_asks` who listens there, and is no request.
Fd connect_to(const std::string& name, bool only_asks) {
    Fd socket = unix_socket();
    const sockaddr any{.sa_family = AF_UNIX, .sa_data = {}};  // the kernel chooses a name
    if (only_asks && ::bind(socket.get(), &any, sizeof(any.sa_family)) != 0) fail("naming a UNIX socket");
    const AbstractAddress address(name);
    if (::connect(socket.get(), address.get(), address.size) == 0) return socket;
    const int error = errno;
    socket = {};
    errno = error;
    return {};
}

// A server, by the name of its socket; its PID is 0 if it is in another PID namespace.
using Listener = std::pair<std::string, pid_t>;

[[noreturn]] void fail_to_choose(const std::vector<Listener>& servers) {
    // With their users: any local user can make a socket of that name.
    std::set<std::string> processes;
    for (const auto& [name, pid] : servers) {
        const auto user = user_of(pid);
        processes.insert(pid == 0 ? "one in another PID namespace"
                                  : fmt::format("{} of {}", pid, user ? user->name : "?"));
    }
    throw std::runtime_error(fmt::format(
        "several processes take reloads in this network namespace: name one of them, {}, as in 'echo-server reload "
        "PID'",
        fmt::join(processes, ", ")));
}

// A request that waits for its answer.
struct Request {
    Fd socket;
    std::string server;  // for messages
};

// Returns nothing if a server, which may be the right one, has too many connections that wait.
std::optional<Request> try_to_request(std::optional<pid_t> pid) {
    std::vector<Listener> servers;
    bool is_full = false;
    for (const auto& name : names_of_servers()) {
        const Fd socket = connect_to(name, true);
        if (!socket)
            is_full |= errno == EAGAIN;
        else if (const auto peer = peer_of(socket).pid; !pid || peer == *pid)
            servers.emplace_back(name, peer);
    }
    if (is_full && (!pid || servers.empty())) return {};
    if (servers.empty() && pid)
        throw std::runtime_error(fmt::format(
            "process {} is no echo-server of this network namespace, or it is stopping: 'echo-server status' shows all",
            *pid));
    if (servers.size() > 1 && !pid) fail_to_choose(servers);
    if (!servers.empty()) {
        const auto& [name, peer] = servers.front();
        Fd socket = connect_to(name, false);
        if (!socket && errno == EAGAIN) return {};
        if (socket)
            return Request{std::move(socket),
                           peer == 0 ? "the process in another PID namespace" : fmt::format("process {}", peer)};
    }
    throw std::runtime_error("no echo-server runs in this network namespace, or it is stopping: start one");
}

std::string read_answer(const Request& request, steady_clock::time_point deadline) {
    constexpr std::size_t longest = 65536;
    std::string answer;
    std::array<char, 4096> buffer;
    while (answer.size() < longest) {
        pollfd ready{.fd = request.socket.get(), .events = POLLIN, .revents = 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
        if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0)
            throw std::runtime_error(
                fmt::format("{} does not answer in {} s: it is stopped (its state in 'ps' is T), or reading its "
                            "ports file hangs; it may still reload later",
                            request.server, longest_wait.count()));
        const auto size = ::recv(request.socket.get(), buffer.data(), buffer.size(), 0);
        if (size <= 0) break;
        answer.append(buffer.data(), static_cast<std::size_t>(size));
    }
    if (answer.empty())
        throw std::runtime_error(
            fmt::format("{} has ended, or begun to stop, without an answer: its log says why", request.server));
    return answer;
}

}  // namespace

void reload_server(std::optional<pid_t> pid) {
    const auto deadline = steady_clock::now() + longest_wait;
    auto request = try_to_request(pid);
    for (; !request; request = try_to_request(pid)) {
        if (steady_clock::now() > deadline)
            throw std::runtime_error(
                "an echo-server in this network namespace takes no commands: name yours by its PID");
        std::this_thread::sleep_for(50ms);
    }
    const auto answer = read_answer(*request, deadline);
    const auto text = printable(answer.substr(1));
    if (answer.front() != success_mark) throw std::runtime_error(text);
    if (!logs_to_journal()) log_line(text);  // the server's own line is there
}

}  // namespace echo_server
