// SPDX-License-Identifier: BSD-2-Clause
#include "service/reload_command.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/text.h"

using asio::posix::stream_descriptor;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace echo_server {
namespace {

// Behind it comes a number that nobody can guess, or another user could have the address first.
constexpr std::string_view name_prefix = "echo-server/";

// base/os.cpp counts their descriptors.
constexpr std::size_t max_commands = 8;

// The first byte of an answer; the text follows, and the end of the connection ends it.
constexpr char success_mark = '+';
constexpr char failure_mark = '-';

/// An abstract address (unix(7)), which belongs to the network namespace and needs no file.
struct AbstractAddress {
    explicit AbstractAddress(std::string_view name) {
        const auto length = std::min(name.size(), sizeof(address.sun_path) - 1);
        name.copy(address.sun_path + 1, length);
        size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
    }
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }

    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    socklen_t size = 0;
};

Fd unix_socket() { return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

// Who was at the other end when it called connect(2) or listen(2).
ucred peer_of(int socket) {
    ucred peer{};
    socklen_t size = sizeof(peer);
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) peer = {.pid = 0, .uid = uid_t(-1), .gid = 0};
    return peer;
}

bool is_gone(int socket) {
    pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
    return ::poll(&end, 1, 0) > 0;
}

void send_text(int socket, std::string_view text) {
    [[maybe_unused]] const auto sent = ::send(socket, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

ReloadSocket::ReloadSocket(asio::io_context& io, HandlerMemory& memory) : memory_(memory), listener_(io), pause_(io) {
    commands_.reserve(max_commands + 1);
}

void ReloadSocket::listen() {
    std::uint64_t number = 0;
    Fd socket = unix_socket();
    if (!socket || ::getrandom(&number, sizeof(number), 0) < 0) fail("making the socket for 'echo-server reload'");
    const AbstractAddress address(fmt::format("{}{:016x}", name_prefix, number));
    if (::bind(socket.get(), address.get(), address.size) != 0 || ::listen(socket.get(), SOMAXCONN) != 0)
        fail("listening for 'echo-server reload'");
    listener_.assign(socket.release());
    pause(0ms);  // the first use of a timer allocates, and later there may be no memory
}

void ReloadSocket::wait() {
    listener_.async_wait(stream_descriptor::wait_read, in_memory(memory_, [this](std::error_code error) {
                             if (!error) accept();
                         }));
}

void ReloadSocket::accept() {
    Fd socket(::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket && errno != EAGAIN && errno != ECONNABORTED) return pause(100ms);
    if (socket) add(std::move(socket));
    wait();
}

void ReloadSocket::add(Fd socket) noexcept {
    const auto user = peer_of(socket.get()).uid;
    send_text(socket.get(), "\n");
    std::erase_if(commands_, [](const Command& command) { return is_gone(command.socket.get()); });
    commands_.push_back({.socket = std::move(socket), .may_read = user == 0 || user == ::geteuid()});
    if (commands_.size() <= max_commands) return;
    // Any local user can connect, and must not push out who may reload.
    auto one_too_many = std::ranges::find(commands_, false, &Command::may_read);
    if (one_too_many == commands_.end()) one_too_many = commands_.begin();
    tell(*one_too_many, false, "too many commands wait for a reload: try again");
    commands_.erase(one_too_many);
}

void ReloadSocket::pause(std::chrono::milliseconds duration) {
    pause_.expires_after(duration);
    pause_.async_wait(in_memory(memory_, [this](std::error_code) {
        if (listener_.is_open()) wait();
    }));
}

void ReloadSocket::begin_reload() noexcept {
    for (auto& command : commands_) command.is_due = true;
}

void ReloadSocket::tell(const Command& command, bool success, std::string_view text) noexcept {
    send_text(command.socket.get(), {success ? &success_mark : &failure_mark, 1});
    if (command.may_read) send_text(command.socket.get(), text);
}

void ReloadSocket::answer(bool success, std::string_view text) noexcept {
    for (const auto& command : commands_)
        if (command.is_due) tell(command, success, text);
    std::erase_if(commands_, [](const Command& command) { return command.is_due; });
}

void ReloadSocket::close(std::string_view why) noexcept {
    begin_reload();
    answer(false, why);
    std::error_code ignored;
    listener_.close(ignored);
}

namespace {

// A server as the command sees it.
struct Peer {
    Fd socket;
    pid_t pid = 0;
};

using Deadline = steady_clock::time_point;
constexpr auto longest_wait = 10s;  // ExecReload= has 15

// The names in /proc/net/unix; a line is "NUMBER: REFERENCES PROTOCOL FLAGS TYPE STATE INODE @NAME" (proc(5)).
std::vector<std::string> names_of_servers() {
    constexpr std::string_view listens = "00010000";
    std::ifstream file("/proc/net/unix");
    if (!file) fail("reading /proc/net/unix");
    std::vector<std::string> names;
    for (std::string line; std::getline(file, line);) {
        std::istringstream fields(line);
        std::array<std::string, 8> field;
        for (auto& text : field) fields >> text;
        if (field[3] == listens && field[7].starts_with(fmt::format("@{}", name_prefix)))
            names.push_back(field[7].substr(1));
    }
    return names;
}

// Nothing, with errno set, if nobody listens there (ECONNREFUSED), or too many connections wait there (EAGAIN).
std::optional<Peer> connect_to(const std::string& name) {
    Fd socket = unix_socket();
    const int on = 1;
    // Each message then tells who has sent it: see read_greeting().
    if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) != 0)
        fail("making a socket to ask for a reload");
    const AbstractAddress address(name);
    if (::connect(socket.get(), address.get(), address.size) != 0) {
        const int error = errno;
        socket = {};
        errno = error;
        return {};
    }
    const pid_t pid = peer_of(socket.get()).pid;
    return Peer{std::move(socket), pid};
}

// All servers, or those with this PID.
std::vector<Peer> find_servers(std::optional<pid_t> pid, Deadline deadline) {
    for (;;) {
        std::vector<Peer> found;
        bool is_full = false;
        for (const auto& name : names_of_servers()) {
            auto peer = connect_to(name);
            if (!peer)
                is_full |= errno == EAGAIN;
            else if (!pid || peer->pid == *pid)
                found.push_back(std::move(*peer));
        }
        if (!is_full || (pid && !found.empty())) return found;
        if (steady_clock::now() > deadline)
            throw std::runtime_error(
                "an echo-server in this network namespace takes no commands: name yours by its PID");
        std::this_thread::sleep_for(50ms);
    }
}

Peer find_server(std::optional<pid_t> pid, Deadline deadline) {
    auto servers = find_servers(pid, deadline);
    const bool any = !servers.empty();
    std::erase_if(servers, [](const Peer& server) { return server.pid == 0; });  // its PID means nothing here
    if (servers.empty() && any)
        throw std::runtime_error(
            "the echo-server of this network namespace runs in another PID namespace: reload it there, for example by "
            "'podman exec NAME echo-server reload'");
    if (servers.empty() && pid)
        throw std::runtime_error(fmt::format(
            "process {} is no echo-server of this network namespace, or it is stopping: 'echo-server status' shows all",
            *pid));
    if (servers.empty())
        throw std::runtime_error("no echo-server runs in this network namespace, or it is stopping: start one");
    if (servers.size() > 1 && !pid) {
        // With their users: any local user can make a socket of that name.
        std::set<std::string> processes;
        for (const auto& server : servers) {
            const auto user = user_of(server.pid);
            processes.insert(fmt::format("{} of {}", server.pid, user ? user->name : "?"));
        }
        throw std::runtime_error(fmt::format(
            "several processes take reloads in this network namespace: name one of them, {}, as in 'echo-server "
            "reload PID'",
            fmt::join(processes, ", ")));
    }
    return std::move(servers.front());
}

// Waits until there is something to read, or the end of the connection.
void wait_for(const Peer& server, Deadline deadline) {
    pollfd ready{.fd = server.socket.get(), .events = POLLIN, .revents = 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
    if (left > 0 && ::poll(&ready, 1, static_cast<int>(left)) > 0) return;
    throw std::runtime_error(
        fmt::format("process {} does not answer in {} s: it is stopped ('ps -o stat= -p {}' shows T), or reading its "
                    "ports file hangs; it may still reload later",
                    server.pid, longest_wait.count(), server.pid));
}

[[noreturn]] void fail_without_answer(const Peer& server) {
    throw std::runtime_error(
        fmt::format("process {} has ended, or begun to stop, without an answer: its log says why", server.pid));
}

// The number that SO_PEERCRED has may be another process's by now; the sender of a message is alive.
void read_greeting(const Peer& server) {
    char byte = 0;
    iovec part{.iov_base = &byte, .iov_len = 1};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred))> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (::recvmsg(server.socket.get(), &message, MSG_CMSG_CLOEXEC) <= 0) fail_without_answer(server);
    ucred sender{};
    if (const auto* header = CMSG_FIRSTHDR(&message); header != nullptr && header->cmsg_type == SCM_CREDENTIALS)
        std::memcpy(&sender, CMSG_DATA(header), sizeof(sender));
    if (sender.pid != server.pid)
        throw std::runtime_error(
            fmt::format("process {} answers in place of process {}: it is no echo-server", sender.pid, server.pid));
}

void send_hangup(pid_t pid) {
    if (::kill(pid, SIGHUP) == 0) return;
    const int error = errno;
    const auto user = user_of(pid);
    fail(fmt::format("sending SIGHUP to process {}{}", pid, user ? fmt::format(" of user {}", user->name) : ""), error,
         error == EPERM ? "only root and that user may reload it" : "");
}

std::string read_answer(const Peer& server, Deadline deadline) {
    constexpr std::size_t longest = 65536;
    std::string answer;
    std::array<char, 4096> buffer;
    while (answer.size() < longest) {
        wait_for(server, deadline);
        const auto size = ::recv(server.socket.get(), buffer.data(), buffer.size(), 0);
        if (size <= 0) break;
        answer.append(buffer.data(), static_cast<std::size_t>(size));
    }
    if (answer.empty()) fail_without_answer(server);
    return answer;
}

}  // namespace

void reload_server(std::optional<pid_t> pid) {
    const Deadline deadline = steady_clock::now() + longest_wait;
    const auto server = find_server(pid, deadline);
    wait_for(server, deadline);
    read_greeting(server);
    send_hangup(server.pid);
    const auto answer = read_answer(server, deadline);
    const auto text =
        answer.size() == 1 ? "the log of the server says how the reload went" : printable(answer.substr(1));
    if (answer.front() != success_mark) throw std::runtime_error(text);
    if (!logs_to_journal()) log_line(text);  // the server's own line is there
}

}  // namespace echo_server
