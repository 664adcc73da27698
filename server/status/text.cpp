// SPDX-License-Identifier: BSD-2-Clause
#include "status/format.h"

#include <fmt/format.h>

#include <chrono>
#include <string_view>

#include "base/text.h"
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

std::string_view state_clause(const ServerStatus& server) {
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
                       visible(server.user.value_or("?")), server.uptime ? duration(*server.uptime) : "?",
                       state_clause(server));
}

std::string listener_line(const ListeningSocket& listener) {
    return line("listener", fmt::format("{}, {} of at most {} waiting, {} dropped", to_string(listener.local),
                                        listener.waiting, listener.backlog, listener.dropped));
}

std::string ports_line(const PortSet& ports) {
    return line("ports", fmt::format("{} open: {}", ports.size(), ports.to_string(ranges_in_a_line)));
}

std::string level_line(std::string_view level, const PortSet& ports, std::string_view remark = "") {
    if (ports.empty()) return line(level, fmt::format("none{}", remark));
    return line(level,
                fmt::format("{}{}: {}", plural(ports.size(), "port"), remark, ports.to_string(ranges_in_a_line)));
}

std::string level_lines(const Levels& levels) {
    return level_line("echoed", levels.echoed) + level_line("connected", levels.connected, " without an echo") +
           level_line("attempted", levels.attempted, " without a connection") +
           (levels.not_reached ? level_line("not reached", *levels.not_reached) : "");
}

std::string counter_lines(const echo_counters& counters, const std::optional<echo_instance>& identity) {
    return line("connections",
                fmt::format("{} open of at most {}, {} in all, {} refused, {} timed out", open_connections(counters),
                            identity ? std::to_string(identity->max_connections) : "?", Count{counters.accepted},
                            Count{counters.refused}, Count{counters.timed_out})) +
           line("bytes", fmt::format("{} received, {} sent", Count{counters.received}, Count{counters.sent}));
}

std::string to_text(const ServerStatus& server) {
    auto text = title(server);
    if (server.ports) text += ports_line(*server.ports);
    if (server.reached) text += level_lines(levels_of(*server.reached, server.ports));
    text += line("addresses", addresses_of(server));
    if (server.listener) text += listener_line(*server.listener);
    if (server.counters) text += counter_lines(*server.counters, server.identity);
    if (server.reached) text += line("attempts", fmt::format("{} in all", attempts(*server.reached)));
    if (server.drops)
        text +=
            line("dropped", fmt::format("{} without a socket, {} not taken by the socket",
                                        (*server.drops)[ECHO_DROP_NO_SOCKET], (*server.drops)[ECHO_DROP_NOT_ASSIGNED]));
    return text;
}

std::string port_table(const ServerStatus& server) {
    constexpr std::string_view row = "  {:>5}  {:>10}  {:>11}  {:>10}\n";
    auto text = title(server);
    if (!server.reached) return text + "  what reached its ports is unknown\n";
    const auto ports = busiest(*server.reached);
    if (ports.empty()) return text + "  no port was reached\n";
    text += fmt::format(row, "port", "attempts", "connections", "with echo");
    for (const auto port : ports) {
        const auto& [steered, accepted, echoed] = (*server.reached)[port];
        text += fmt::format(row, port, Count{steered}, Count{accepted}, Count{echoed});
    }
    return text;
}

std::string text_of_each(const std::vector<ServerStatus>& servers, std::string (*text_of)(const ServerStatus&)) {
    std::string text;
    for (const auto& server : servers) {
        if (!text.empty()) text += '\n';
        text += text_of(server);
    }
    return text;
}

}  // namespace

std::string to_text(const std::vector<ServerStatus>& servers) { return text_of_each(servers, to_text); }

std::string to_port_table(const std::vector<ServerStatus>& servers) { return text_of_each(servers, port_table); }

}  // namespace echo_server
