// SPDX-License-Identifier: BSD-2-Clause
#include "status/format.h"

#include <fmt/format.h>

#include <chrono>
#include <string_view>

#include "net/address.h"
#include "status/figures.h"

namespace echo_server {
namespace {

using Count = std::uint64_t;

constexpr std::size_t ranges_in_a_line = 16;

std::string duration(std::chrono::nanoseconds time) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time).count();
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
    if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
    return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string addresses_of(const ServerStatus& server) {
    if (!server.addresses) return "unknown";
    return server.addresses->empty() ? "any" : to_string(*server.addresses);
}

std::string line(std::string_view name, std::string_view value) { return fmt::format("  {:<11}  {}\n", name, value); }

std::string process_of(const ServerStatus& server) {
    if (!server.identity) return fmt::format("BPF program {} of another version", server.program);
    return fmt::format("process {}{}", server.identity->pid,
                       server.pid     ? ""
                       : server.ended ? ", which has ended"
                                      : " of another PID namespace");
}

std::string_view state_of(const ServerStatus& server) {
    switch (server.state) {
        case RunningServer::State::serving: return "";
        case RunningServer::State::socketless: return ", without its listening socket: its ports are closed";
        case RunningServer::State::detached: return ", with its program detached: its ports are closed";
        case RunningServer::State::waiting: return ", stopped or draining: newcomers wait for the next start";
        case RunningServer::State::draining: return ", draining";
    }
    return "";
}

std::string title(const ServerStatus& server) {
    return fmt::format("echo-server {}: {}, user {}, up {}{}\n", version_of(server), process_of(server),
                       server.user.value_or("?"), server.uptime ? duration(*server.uptime) : "?", state_of(server));
}

std::string listener_line(const ListeningSocket& listener) {
    return line("listener", fmt::format("{}, {} of at most {} waiting, {} dropped", to_string(listener.local),
                                        listener.waiting, listener.backlog, listener.dropped));
}

std::string ports_line(const PortSet& ports) {
    return line("ports", fmt::format("{} open: {}", ports.size(), ports.to_string(ranges_in_a_line)));
}

std::string counter_lines(const echo_counters& counters, const std::optional<echo_instance>& identity) {
    return line("connections",
                fmt::format("{} open of at most {}, {} in all, {} refused, {} timed out", open_connections(counters),
                            identity ? std::to_string(identity->max_connections) : "?", Count{counters.accepted},
                            Count{counters.refused}, Count{counters.timed_out})) +
           line("bytes", fmt::format("{} received, {} sent", Count{counters.received}, Count{counters.sent}));
}

std::string attempt_lines(const std::vector<Count>& steered) {
    const auto ports = reached(steered);
    if (ports.empty()) return line("attempts", "none");
    std::string list;
    for (const auto& [port, count] : busiest(steered))
        list += fmt::format("{}{} ({})", list.empty() ? "" : ", ", port, count);
    return line("attempts", fmt::format("{} on {} port{}: {}", sum(steered), ports.size(), ports.size() == 1 ? "" : "s",
                                        ports.to_string(ranges_in_a_line))) +
           line("busiest", list);
}

std::string to_text(const ServerStatus& server) {
    auto text = title(server);
    if (server.listener) text += listener_line(*server.listener);
    if (server.ports) text += ports_line(*server.ports);
    text += line("addresses", addresses_of(server));
    if (server.counters) text += counter_lines(*server.counters, server.identity);
    if (server.steered) text += attempt_lines(*server.steered);
    if (server.drops)
        text +=
            line("dropped", fmt::format("{} without a socket, {} not taken by the socket",
                                        (*server.drops)[ECHO_DROP_NO_SOCKET], (*server.drops)[ECHO_DROP_NOT_ASSIGNED]));
    return text;
}

}  // namespace

std::string to_text(const std::vector<ServerStatus>& servers) {
    std::string text;
    for (const auto& server : servers) {
        if (!text.empty()) text += '\n';
        text += to_text(server);
    }
    return text;
}

}  // namespace echo_server
