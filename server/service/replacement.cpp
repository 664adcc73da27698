// SPDX-License-Identifier: BSD-2-Clause
#include "service/replacement.h"

#include <fmt/format.h>
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
#include "dispatch/dispatcher.h"
#include "net/sockets.h"

namespace echo_server {
namespace {

std::string name_of(const Instance& server) {
    return fmt::format("process {}{}", server.identity.pid,
                       in_this_pid_namespace(server.identity) ? "" : " of another PID namespace");
}

[[noreturn]] void fail_to_replace(const Instance& server, std::string_view why) {
    throw std::runtime_error(fmt::format("replacing {}: {}; the old server keeps running", name_of(server), why));
}

// Why a server can't be replaced, and what to do; "" if it can.
std::string_view why_not_replaceable(const std::vector<Instance>& running, const Instance& server) {
    if (!in_this_pid_namespace(server.identity))
        return "start the new server in that namespace, or stop the old one there first";
    // The listener can only come from one server.
    const auto has_it = [socket = server.listener_cookie()](const auto& other) {
        return other.listener_cookie() == socket;
    };
    if (!std::ranges::all_of(running, has_it))
        return "several servers run here, each with its own socket: stop all but one first ('echo-server status' shows "
               "them)";
    return "";
}

Fd duplicate(const Instance& server, const Fd& process, int fd, std::string_view name) {
    // glibc has a wrapper only since 2.36.
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
    // A compromised server can open another socket under this number, but can't change the map, which is frozen.
    if (const auto cookie = socket_cookie(listener.get()); cookie == 0 || cookie != server.listener_cookie())
        fail_to_replace(server, "its listening socket is not the one in the map echo_socket: stop it first");
    if (!is_listening(listener.get())) return {};  // it was destroyed
    return listener;
}

Replacement take_over(const std::vector<Instance>& running) {
    const SightOfProcesses sight;
    Replacement replacement;
    for (const auto& server : running) {
        if (const auto why = why_not_replaceable(running, server); !why.empty()) fail_to_replace(server, why);
        const auto pid = static_cast<pid_t>(server.identity.pid);
        const Fd process = open_process(pid, server.identity.process_start);
        if (!process) fail_to_replace(server, error_text(errno));
        Fd listener = duplicate_listener(server, process);
        if (!replacement.listener) replacement.listener = std::move(listener);
        replacement.servers.push_back(
            {server.program, pid, duplicate(server, process, server.identity.replaced_event, "eventfd")});
    }
    return replacement;
}

// Those of `ports` that the server has open; none if it serves other addresses, or is of another version.
PortSet in_common(const Instance& server, const PortSet& ports, const std::vector<AddressPrefix>& addresses) {
    if (!server.attached() || !server.is_of_this_version()) return {};
    const auto theirs = read_addresses(*server.map("echo_addresses"));
    const auto is_shared = [&](const AddressPrefix& prefix) {
        return std::ranges::any_of(theirs, [&](const auto& other) { return overlap(prefix, other); });
    };
    if (!theirs.empty() && !addresses.empty() && std::ranges::none_of(addresses, is_shared)) return {};
    return ports & read_ports(server.map("echo_ports")->fd.get());
}

void warn_of_other_programs(std::size_t known, std::string_view whose) {
    if (attached_programs() > known)
        log_warning("another sk_lookup program is attached here{}. This one is newer: it wins where both have a port",
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
    // A server whose program is attached has the ports: ignore detached ones beside it.
    if (std::ranges::any_of(servers, &Instance::attached))
        std::erase_if(servers, [](const Instance& server) { return !server.attached(); });
    const auto started = [](const Instance& server) { return server.identity.started; };
    std::ranges::stable_sort(servers, std::greater(), started);
    return servers;
}

Replacement prepare_replacement() {
    for (auto running = running_servers(true);;) {
        try {
            return take_over(running);
        } catch (const std::runtime_error&) {
            // If a server ended or started meanwhile, try again.
            auto still_running = running_servers(true);
            if (std::ranges::equal(still_running, running, {}, &Instance::program, &Instance::program)) throw;
            running = std::move(still_running);
        }
    }
}

void complete(const Replacement& replacement) {
    for (const auto& server : replacement.servers) {
        // A full eventfd was signalled before. Don't wait for it: the process may hang.
        pollfd ready{.fd = server.replaced_event.get(), .events = POLLOUT, .revents = 0};
        if (::poll(&ready, 1, 0) == 1) ::eventfd_write(server.replaced_event.get(), 1);
    }
}

std::optional<Instance> take_predecessor(std::vector<Instance>& running, std::uint16_t port) {
    const auto sockets = running.empty() ? std::vector<ListeningSocket>() : listening_sockets();
    const auto is_it = [&](const Instance& server) {
        if (port == 0 && running.size() == 1) return true;
        const auto socket = std::ranges::find(sockets, server.listener_cookie(), &ListeningSocket::cookie);
        return socket == sockets.end() || socket->local.port() == port;
    };
    const auto found = std::ranges::find_if(running, is_it);
    if (found == running.end()) return {};
    std::optional<Instance> server(std::move(*found));
    running.erase(found);
    return server;
}

std::vector<Instance> find_neighbours(std::uint16_t port) {
    auto running = running_servers(false);
    if (const auto first = take_predecessor(running, port))
        throw std::runtime_error(
            fmt::format("an echo-server runs in this network namespace already ({}): --replace takes over from it, and "
                        "refuses no new connection; or stop it first, or choose other ports, and another --listen port",
                        name_of(*first)));
    return running;
}

void check_neighbours(const std::vector<Instance>& neighbours, const PortSet& ports,
                      const std::vector<AddressPrefix>& addresses) {
    for (const auto& server : neighbours) {
        const auto common = in_common(server, ports, addresses);
        if (common.empty()) continue;
        throw std::runtime_error(
            fmt::format("another echo-server ({}) has ports of this list open: {}; leave them out here or there",
                        name_of(server), common.to_string(ranges_in_a_line)));
    }
}

void check_alone(const Instance& self, const PortSet& ports, const std::vector<AddressPrefix>& addresses,
                 const Replacement& replacement, std::size_t stored) {
    std::vector<Instance> servers;
    try {
        servers = find_instances();
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::operation_not_permitted) throw;
        return warn_of_other_programs(1 + stored,
                                      "; only a start with CAP_SYS_ADMIN could tell whether it is an echo-server's");
    }
    for (const auto& server : servers) {
        if (server.program == self.program || !is_running(server)) continue;
        const auto& replaced = replacement.servers;
        if (std::ranges::find(replaced, server.program, &Replacement::Server::program) != replaced.end()) continue;
        if (server.listener_cookie() == self.listener_cookie() || !in_common(server, ports, addresses).empty())
            throw std::runtime_error("another echo-server has started at the same moment; try again");
    }
    const auto known = std::ranges::count_if(servers, &Instance::attached);
    warn_of_other_programs(static_cast<std::size_t>(known), ", which is not an echo-server's");
}

}  // namespace echo_server
