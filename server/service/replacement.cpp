// SPDX-License-Identifier: BSD-2-Clause
#include "service/replacement.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "net/listener.h"

namespace echo_server {
namespace {

[[noreturn]] void fail_to_replace(pid_t pid, std::string_view why) {
    throw std::runtime_error(fmt::format("taking over from process {}: {}; that process goes on as before", pid, why));
}

std::string name_of(const Instance& server) {
    if (!server.identity) return fmt::format("BPF program {} of another version", server.program);
    return fmt::format("process {}{}", server.identity->pid,
                       in_this_pid_namespace(*server.identity) ? "" : " of another PID namespace");
}

// The listener can only come from one server.
bool have_one_socket(const std::vector<Instance>& running) {
    return std::ranges::all_of(
        running, [&](const Instance& server) { return server.listener_cookie() == running.front().listener_cookie(); });
}

[[noreturn]] void fail_to_replace(pid_t pid, std::string_view what, int error) {
    fail_to_replace(pid, fmt::format("{}: {}{}", what, error_text(error),
                                     error == EPERM || error == EACCES ? " (that needs CAP_SYS_PTRACE)" : ""));
}

// Duplicates only a descriptor of `kind`: to close any other can hang for ever, for example on a file system that the
// process itself serves.
Fd duplicate(const Fd& process, pid_t pid, int fd, std::string_view kind, std::string_view name) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(fmt::format("/proc/{}/fd/{}", pid, fd), error).string();
    if (error == std::errc::no_such_file_or_directory)
        fail_to_replace(pid, fmt::format("it has closed its {}, because it drains; try again once it has ended", name));
    if (error) fail_to_replace(pid, fmt::format("looking at its {}, descriptor {}", name, fd), error.value());
    if (!target.starts_with(kind)) fail_to_replace(pid, fmt::format("its descriptor {} is no {}", fd, name));
    // glibc has a wrapper since 2.36 alone.
    Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
    if (!copy) fail_to_replace(pid, fmt::format("duplicating its {}", name), errno);
    return copy;
}

bool is_eventfd(const Fd& fd) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd.get()), error);
    return target == "anon_inode:[eventfd]";
}

// Nothing if the process has lost its listener.
Fd duplicate_listener(const Instance& running, const Fd& process, pid_t pid) {
    if (running.state == Instance::State::socketless) return {};
    Fd listener = duplicate(process, pid, running.identity->listener, "socket:[", "listening socket");
    // An older server could write into echo_instance without privileges.
    if (const auto cookie = socket_cookie(listener.get()); cookie == 0 || cookie != running.listener_cookie())
        fail_to_replace(pid,
                        "the socket in the map echo_socket is not its own, or there is none; stop it and start anew");
    if (!is_listening(listener.get())) return {};  // it was destroyed, and is of no use any more
    return listener;
}

Fd duplicate_eventfd(const Instance& running, const Fd& process, pid_t pid) {
    Fd replaced = duplicate(process, pid, running.identity->replaced_event, "anon_inode:[eventfd]", "eventfd");
    if (!is_eventfd(replaced))
        fail_to_replace(pid, "it can't be told to drain: its descriptor for that is not an eventfd");
    return replaced;
}

// A server whose program is attached has the ports; a detached server beside it does not matter.
std::vector<Instance> find_running() {
    auto servers = find_instances();
    const auto remove = [&](auto condition) {
        servers.erase(std::remove_if(servers.begin(), servers.end(), condition), servers.end());
    };
    remove([](const Instance& server) { return !is_running(server); });
    if (std::ranges::any_of(servers, [](const Instance& server) { return server.attached(); }))
        remove([](const Instance& server) { return !server.attached(); });
    return servers;
}

void warn_of_other_programs(std::size_t known, std::string_view whose) {
    if (attached_programs() > known)
        log_warning("another sk_lookup program is attached here{}. This one comes last and wins where both have a port",
                    whose);
}

std::vector<std::uint32_t> programs_of(const std::vector<Instance>& servers) {
    std::vector<std::uint32_t> programs;
    for (const auto& server : servers) programs.push_back(server.program);
    return programs;
}

// Recommends --replace only where it would not be refused.
[[noreturn]] void refuse_second(const std::vector<Instance>& running) {
    const auto& first = running.front();
    std::string_view what_to_do = "--replace takes over from it without losing a connection, or stop it first";
    if (!first.identity)
        what_to_do = "stop it first";
    else if (!in_this_pid_namespace(*first.identity))
        what_to_do = "stop it first, there";
    else if (!have_one_socket(running))
        what_to_do = "it is not the only one, and each has a socket of its own: stop them first";
    const std::string_view state = first.state == Instance::State::detached     ? ", with its program detached"
                                   : first.state == Instance::State::socketless ? ", without its socket"
                                                                                : "";
    throw std::runtime_error(fmt::format("an echo-server runs in this network namespace already ({}){}: {}",
                                         name_of(first), state, what_to_do));
}

}  // namespace

std::vector<Instance> running_servers(bool needed) {
    std::vector<Instance> servers;
    try {
        servers = find_running();
    } catch (const std::system_error& error) {
        if (needed || error.code() != std::errc::operation_not_permitted) throw;
        return {};
    }
    const auto started = [](const Instance& server) { return server.identity ? server.identity->started : 0; };
    std::ranges::stable_sort(servers, [&](const auto& a, const auto& b) { return started(a) > started(b); });
    return servers;
}

Replacement::Replacement(const std::vector<Instance>& running) {
    for (const auto& server : running) {
        if (!server.identity)
            throw std::runtime_error(
                fmt::format("taking over from BPF program {}: it is of a version that can't be replaced: stop it first",
                            server.program));
        if (!in_this_pid_namespace(*server.identity))
            throw std::runtime_error(fmt::format(
                "taking over from {}: start the new one there, or stop the old one first, which goes on as before",
                name_of(server)));
        const auto pid = static_cast<pid_t>(server.identity->pid);
        if (!have_one_socket(running))
            throw std::runtime_error(
                "looking for the echo-server to replace: several run here, each with a socket of its own; stop all but "
                "one first ('echo-server status' shows them)");
        const Fd process = open_process_of(*server.identity);
        if (!process) fail_to_replace(pid, "opening it", errno);
        Fd listener = duplicate_listener(server, process, pid);
        if (!listener_) listener_ = std::move(listener);
        running_.push_back({server.program, pid, duplicate_eventfd(server, process, pid)});
    }
}

bool Replacement::includes(std::uint32_t program) const {
    return std::ranges::any_of(running_, [&](const Running& server) { return server.program == program; });
}

std::string Replacement::pids() const {
    std::string list;
    for (const auto& server : running_) list += (list.empty() ? "" : ", ") + std::to_string(server.pid);
    return list;
}

void Replacement::complete() {
    for (const auto& server : running_) {
        // An eventfd that is full was signalled before. Don't wait: the process may hang.
        pollfd ready{.fd = server.replaced.get(), .events = POLLOUT, .revents = 0};
        if (::poll(&ready, 1, 0) != 1) continue;
        if (::eventfd_write(server.replaced.get(), 1) != 0 && errno != EAGAIN)
            fail_to_replace(server.pid, "telling it to drain", errno);
    }
}

std::optional<Replacement> prepare_replacement(bool replace) {
    auto running = running_servers(replace);
    while (!running.empty()) {
        if (!replace) refuse_second(running);
        try {
            return Replacement(running);
        } catch (const std::runtime_error&) {
            // A server that ends at this moment is no obstacle.
            auto still_running = running_servers(replace);
            if (programs_of(still_running) == programs_of(running)) throw;
            running = std::move(still_running);
        }
    }
    return {};
}

void check_alone(std::uint32_t own_program, const std::optional<Replacement>& replacement, std::size_t stored) {
    std::vector<Instance> servers;
    try {
        servers = find_instances();
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::operation_not_permitted) throw;
        return warn_of_other_programs(1 + stored, "; only root could tell whether it is an echo-server's");
    }
    for (const auto& server : servers)
        if (server.program != own_program && server.attached() && is_running(server) &&
            !(replacement && replacement->includes(server.program)))
            throw std::runtime_error("another echo-server has started at the same moment; try again");
    const auto known =
        std::count_if(servers.begin(), servers.end(), [](const auto& server) { return server.attached(); });
    warn_of_other_programs(static_cast<std::size_t>(known), ", which is no echo-server's");
}

}  // namespace echo_server
