// SPDX-License-Identifier: BSD-2-Clause
#include "service/replacement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "base/log.h"
#include "base/privileges.h"
#include "net/sockets.h"

namespace echo_server {
namespace {

std::string name_of(const Instance& server) {
    return fmt::format("process {}{}", server.identity.pid,
                       in_this_pid_namespace(server.identity) ? "" : " of another PID namespace");
}

[[noreturn]] void fail_to_replace(const Instance& server, std::string_view why) {
    throw std::runtime_error(fmt::format("replacing {}: {}; it goes on as before", name_of(server), why));
}

// Why a server can't be replaced, and what to do; "" if it can.
std::string_view why_not_replaceable(const std::vector<Instance>& running, const Instance& server) {
    if (!in_this_pid_namespace(server.identity)) return "start the new one there, or stop it first, there";
    // The listener can only come from one server.
    const auto has_it = [socket = server.listener_cookie()](const auto& other) {
        return other.listener_cookie() == socket;
    };
    if (!std::ranges::all_of(running, has_it))
        return "it is not the only one, and each has a socket of its own: stop all but one first ('echo-server status' "
               "shows them)";
    return "";
}

Fd duplicate(const Instance& server, const Fd& process, int fd, std::string_view name) {
    // glibc has a wrapper since 2.36 alone.
    Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
    if (copy) return copy;
    if (errno == EBADF)
        fail_to_replace(server,
                        fmt::format("it has closed its {}, because it drains; try again once it has ended", name));
    fail_to_replace(server, fmt::format("duplicating its {}: {}{}", name, error_text(errno),
                                        errno == EPERM || errno == EACCES ? " (that needs CAP_SYS_PTRACE)" : ""));
}

// Nothing if the process has lost its listener.
Fd duplicate_listener(const Instance& server, const Fd& process) {
    if (server.state == Instance::State::socketless) return {};
    Fd listener = duplicate(server, process, server.identity.listener, "listening socket");
    // A server that was broken into may have put another socket there, but not into the map, which is frozen.
    if (const auto cookie = socket_cookie(listener.get()); cookie == 0 || cookie != server.listener_cookie())
        fail_to_replace(server, "its listening socket is not the one in the map echo_socket: stop it first");
    if (!is_listening(listener.get())) return {};  // it was destroyed
    return listener;
}

[[noreturn]] void refuse_second(const std::vector<Instance>& running) {
    const auto& first = running.front();
    const auto why_not = why_not_replaceable(running, first);
    const std::string_view state = first.state == Instance::State::detached     ? ", with its program detached"
                                   : first.state == Instance::State::socketless ? ", without its socket"
                                                                                : "";
    throw std::runtime_error(fmt::format(
        "an echo-server runs in this network namespace already ({}){}: {}", name_of(first), state,
        why_not.empty() ? "--replace takes over from it without losing a connection, or stop it first" : why_not));
}

void warn_of_other_programs(std::size_t known, std::string_view whose) {
    if (attached_programs() > known)
        log_warning("another sk_lookup program is attached here{}. This one comes last and wins where both have a port",
                    whose);
}

}  // namespace

std::vector<Instance> running_servers(bool needed) {
    std::vector<Instance> servers;
    try {
        servers = find_instances();
    } catch (const std::system_error& error) {
        if (needed || error.code() != std::errc::operation_not_permitted) throw;
    }
    std::erase_if(servers, [](const Instance& server) { return !is_running(server); });
    // A server whose program is attached has the ports; a detached server beside it does not matter.
    if (std::ranges::any_of(servers, &Instance::attached))
        std::erase_if(servers, [](const Instance& server) { return !server.attached(); });
    const auto started = [](const Instance& server) { return server.identity.started; };
    std::ranges::stable_sort(servers, std::greater(), started);
    return servers;
}

Replacement::Replacement(const std::vector<Instance>& running) {
    const SightOfProcesses sight;
    for (const auto& server : running) {
        if (const auto why = why_not_replaceable(running, server); !why.empty()) fail_to_replace(server, why);
        const Fd process = open_process_of(server.identity);
        if (!process) fail_to_replace(server, error_text(errno));
        Fd listener = duplicate_listener(server, process);
        if (!listener_) listener_ = std::move(listener);
        running_.push_back({server.program, static_cast<pid_t>(server.identity.pid),
                            duplicate(server, process, server.identity.replaced_event, "eventfd")});
    }
}

bool Replacement::includes(std::uint32_t program) const {
    return std::ranges::any_of(running_, [&](const Running& server) { return server.program == program; });
}

std::string Replacement::description() const {
    std::vector<pid_t> pids;
    for (const auto& server : running_) pids.push_back(server.pid);
    return fmt::format("process {}, which drain{}", fmt::join(pids, ", "), pids.size() == 1 ? "s" : "");
}

void Replacement::complete() {
    for (const auto& server : running_) {
        // An eventfd that is full was signalled before. Don't wait: the process may hang.
        pollfd ready{.fd = server.replaced.get(), .events = POLLOUT, .revents = 0};
        if (::poll(&ready, 1, 0) == 1) ::eventfd_write(server.replaced.get(), 1);
    }
}

std::optional<Replacement> prepare_replacement(bool replace) {
    auto running = running_servers(replace);
    while (!running.empty()) {
        if (!replace) refuse_second(running);
        try {
            return Replacement(running);
        } catch (const std::runtime_error&) {
            // A server that ends at this moment does not get in the way.
            auto still_running = running_servers(replace);
            if (std::ranges::equal(still_running, running, {}, &Instance::program, &Instance::program)) throw;
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
    const auto known = std::ranges::count_if(servers, &Instance::attached);
    warn_of_other_programs(static_cast<std::size_t>(known), ", which is not an echo-server's");
}

}  // namespace echo_server
