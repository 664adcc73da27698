// SPDX-License-Identifier: BSD-2-Clause
#include "service/reload_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <asio/local/stream_protocol.hpp>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "base/log.h"
#include "base/text.h"

using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace echo_server {
namespace {

// The PID follows, and a number that nobody can guess: otherwise another user could take the address first.
constexpr std::string_view name_prefix = "echo-server/";

// The first byte of an answer; the text follows, and the end of the connection ends it.
constexpr char success_mark = '+';
constexpr char failure_mark = '-';

constexpr auto longest_wait = 10s;  // ExecReload= allows 15

// An abstract address begins with a zero byte (unix(7)): it belongs to the network namespace, and needs no file.
using Address = asio::local::stream_protocol::endpoint;
constexpr std::size_t max_name_size = 64;  // another program may make a name that is too long for an Address

Fd unix_socket() {
    return checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                   "making a UNIX socket for 'echo-server reload'");
}

// The process at the other end, as it was when it called connect(2) or listen(2).
ucred peer_of(const Fd& socket) {
    ucred peer{.pid = 0, .uid = uid_t(-1), .gid = 0};
    socklen_t size = sizeof(peer);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer;
}

// A server, if the name of its socket is true: any local user can make a socket with such a name.
struct Listener {
    Address address;
    pid_t pid;
};

// All of them, or those with this PID. In /proc/net/unix, the name ends the line (proc(5)).
std::vector<Listener> find_listeners(std::optional<pid_t> pid) {
    constexpr std::string_view listens = " 00010000 ";
    std::ifstream file("/proc/net/unix");
    if (!file) fail("reading /proc/net/unix");
    std::vector<Listener> found;
    for (std::string line; std::getline(file, line);) {
        const auto at = line.find(fmt::format(" @{}", name_prefix));
        if (at == std::string::npos || line.find(listens) > at) continue;
        const auto name = line.substr(at + 2);
        const auto rest = std::string_view(name).substr(name_prefix.size());
        const auto number = parse_number<pid_t>(rest.substr(0, rest.find('/')));
        if (number && (!pid || *number == *pid) && name.size() <= max_name_size)
            found.push_back({Address('\0' + name), *number});
    }
    return found;
}

[[noreturn]] void fail_to_choose(const std::vector<Listener>& servers) {
    std::set<std::string> processes;
    for (const auto& [address, pid] : servers) {
        const auto user = user_of(pid);
        processes.insert(fmt::format("{} of {}", pid, user ? user->name : "?"));
    }
    throw std::runtime_error(fmt::format(
        "several processes accept reloads in this network namespace: choose one of them, {}: 'echo-server reload PID'",
        fmt::join(processes, ", ")));
}

// Returns nothing if all are gone, or have full queues. If `pid` is given, only that process counts.
Fd connect_to(const std::vector<Listener>& servers, std::optional<pid_t> pid, steady_clock::time_point deadline) {
    for (bool is_full = true; is_full && steady_clock::now() < deadline; std::this_thread::sleep_for(50ms)) {
        is_full = false;
        for (const auto& server : servers) {
            Fd socket = unix_socket();
            if (::connect(socket.get(), server.address.data(), static_cast<socklen_t>(server.address.size())) != 0)
                is_full |= errno == EAGAIN;
            else if (!pid || peer_of(socket).pid == *pid)
                return socket;
        }
    }
    return {};
}

std::string read_answer(const Fd& socket, pid_t pid, steady_clock::time_point deadline) {
    constexpr std::size_t longest = 65536;
    std::string answer;
    std::array<char, 4096> buffer;
    while (answer.size() < longest) {
        pollfd ready{.fd = socket.get(), .events = POLLIN, .revents = 0};
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
        if (left <= 0 || ::poll(&ready, 1, static_cast<int>(left)) <= 0)
            throw std::runtime_error(
                fmt::format("process {} does not answer in {} s: it is stopped (its state in 'ps' is T), or reading "
                            "its ports file hangs; it may still reload later",
                            pid, longest_wait.count()));
        const auto size = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
        if (size <= 0) break;
        answer.append(buffer.data(), static_cast<std::size_t>(size));
    }
    if (answer.empty())
        throw std::runtime_error(
            fmt::format("process {} has ended, or is stopping, and gave no answer: see its log", pid));
    return answer;
}

}  // namespace

Fd open_reload_socket() {
    std::uint64_t number = 0;
    Fd socket = unix_socket();
    if (::getrandom(&number, sizeof(number), 0) < 0) fail("making a random number");
    const Address address(fmt::format("{}{}{}/{:016x}", '\0', name_prefix, ::getpid(), number));
    if (::bind(socket.get(), address.data(), static_cast<socklen_t>(address.size())) != 0 ||
        ::listen(socket.get(), SOMAXCONN) != 0)
        fail("listening for 'echo-server reload'");
    return socket;
}

Fd accept_reload(int listener, uid_t user) {
    errno = 0;
    Fd command(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!command) return {};
    if (const auto peer = peer_of(command).uid; peer == 0 || peer == user) return command;
    answer_reload(command, false, "reloading this server: only root and the server's own user may do that");
    return {};
}

void answer_reload(const Fd& command, bool success, std::string_view text) noexcept {
    for (const auto part : {std::string_view(success ? &success_mark : &failure_mark, 1), text})
        std::ignore = ::send(command.get(), part.data(), part.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void reload_server(std::optional<pid_t> pid) {
    const auto deadline = steady_clock::now() + longest_wait;
    const auto servers = find_listeners(pid);
    if (!pid && servers.size() > 1) fail_to_choose(servers);
    const Fd server = connect_to(servers, pid, deadline);
    if (!server && pid)
        throw std::runtime_error(
            fmt::format("process {} is not an echo-server of this network namespace, or it is stopping: 'echo-server "
                        "status' shows all",
                        *pid));
    if (!server)
        throw std::runtime_error("no echo-server runs in this network namespace, or it is stopping: start one");
    const auto answer = read_answer(server, servers.front().pid, deadline);
    const auto text = printable(answer.substr(1));
    if (answer.front() != success_mark) throw std::runtime_error(text);
    if (!logs_to_journal()) log_line(text);  // the server's own line is there
}

}  // namespace echo_server
