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

std::string addresses_of(const InstanceStatus& one) {
    if (!one.addresses) return "unknown";
    return one.addresses->empty() ? "any" : to_string(*one.addresses);
}

std::string line(std::string_view name, std::string_view value) { return fmt::format("  {:<11}  {}\n", name, value); }

std::string process_of(const InstanceStatus& one) {
    if (!one.identity) return fmt::format("BPF program {} of another version", one.program);
    return fmt::format("process {}{}", one.identity->pid,
                       one.pid     ? ""
                       : one.ended ? ", which has ended"
                                   : " of another PID namespace");
}

std::string_view state_of(const InstanceStatus& one) {
    switch (one.state) {
        case Instance::State::serving: return "";
        case Instance::State::socketless: return ", without its listening socket: its ports are closed";
        case Instance::State::detached: return ", with its program detached: its ports are closed";
        case Instance::State::draining: return ", draining";
    }
    return "";
}

std::string title(const InstanceStatus& one) {
    return fmt::format("echo-server {}: {}, user {}, up {}{}\n", version_of(one), process_of(one),
                       one.user.value_or("?"), one.uptime ? duration(*one.uptime) : "?", state_of(one));
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

std::string to_text(const InstanceStatus& one) {
    auto text = title(one);
    if (one.listener) text += listener_line(*one.listener);
    if (one.ports) text += ports_line(*one.ports);
    text += line("addresses", addresses_of(one));
    if (one.counters) text += counter_lines(*one.counters, one.identity);
    if (one.steered) text += attempt_lines(*one.steered);
    if (one.drops)
        text += line("dropped", fmt::format("{} without a socket, {} not taken by the socket",
                                            (*one.drops)[ECHO_DROP_NO_SOCKET], (*one.drops)[ECHO_DROP_NOT_ASSIGNED]));
    return text;
}

}  // namespace

std::string to_text(const std::vector<InstanceStatus>& instances) {
    std::string text;
    for (const auto& one : instances) {
        if (!text.empty()) text += '\n';
        text += to_text(one);
    }
    return text;
}

}  // namespace echo_server
