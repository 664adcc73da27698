// SPDX-License-Identifier: BSD-2-Clause
#include "status/status.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "net/address.h"

namespace echo_server {

namespace {

using Count = std::uint64_t;

std::string duration(std::chrono::nanoseconds time) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time).count();
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
    if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
    return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

std::string addresses_of(const ServerStatus& server) {
    return server.addresses->empty() ? "any" : to_string(*server.addresses);
}

std::string line(std::string_view name, std::string_view value) { return fmt::format("  {:<11}  {}\n", name, value); }

std::string process_of(const ServerStatus& server) {
    const auto version = server.addresses ? "" : " of another version";
    if (!server.identity) return fmt::format("BPF program {}{}", server.program, version);
    return fmt::format("process {}{}{}", server.identity->pid, version,
                       server.pid     ? ""
                       : server.ended ? ", which has ended"
                                      : " of another PID namespace");
}

std::string_view state_clause(const ServerStatus& server) {
    switch (server.state) {
        case Instance::State::serving: return "";
        case Instance::State::socketless: return ", without its listening socket: its ports are closed";
        case Instance::State::detached: return ", with its program detached: its ports are closed";
        case Instance::State::waiting: return ", stopped or draining: newcomers wait for the next start";
        case Instance::State::draining: return ", draining";
    }
    return "";
}

std::string title(const ServerStatus& server) {
    return fmt::format("echo-server {}: {}, user {}, up {}{}\n", version_of(server), process_of(server),
                       printable(server.user.value_or("?")), server.uptime ? duration(*server.uptime) : "?",
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
    if (!server.addresses) return text;
    if (server.ports) text += ports_line(*server.ports);
    if (server.port_stats) text += level_lines(levels_of(*server.port_stats, server.ports));
    text += line("addresses", addresses_of(server));
    if (server.listener) text += listener_line(*server.listener);
    if (server.counters) text += counter_lines(*server.counters, server.identity);
    if (server.port_stats) text += line("attempts", fmt::format("{} in all", attempts(*server.port_stats)));
    if (server.drops)
        text +=
            line("dropped", fmt::format("{} without a socket, {} not taken by the socket",
                                        (*server.drops)[ECHO_DROP_NO_SOCKET], (*server.drops)[ECHO_DROP_NOT_ASSIGNED]));
    return text;
}

std::string port_table(const ServerStatus& server) {
    constexpr std::string_view row = "  {:>5}  {:>10}  {:>11}  {:>10}\n";
    auto text = title(server);
    if (!server.port_stats) return text + "  what reached its ports is unknown\n";
    const auto ports = busiest(*server.port_stats);
    if (ports.empty()) return text + "  no port was reached\n";
    text += fmt::format(row, "port", "attempts", "connections", "with echo");
    for (const auto port : ports) {
        const auto& [lookups, accepted, echoed] = (*server.port_stats)[port];
        text += fmt::format(row, port, Count{lookups}, Count{accepted}, Count{echoed});
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

namespace {

std::string_view state_of(const ServerStatus& server) {
    switch (server.state) {
        case Instance::State::serving: return "serving";
        case Instance::State::socketless: return "without socket";
        case Instance::State::detached: return "detached";
        case Instance::State::waiting: return "waiting";
        case Instance::State::draining: return "draining";
    }
    return "";
}

nlohmann::ordered_json to_json(const PortSet& ports) { return {{"count", ports.size()}, {"list", ports.to_string()}}; }

void add_reached(nlohmann::ordered_json& json, const std::vector<echo_port_stats>& port_stats,
                 const std::optional<PortSet>& ports) {
    const auto levels = levels_of(port_stats, ports);
    json["levels"] = {{"echoed", to_json(levels.echoed)},
                      {"connected", to_json(levels.connected)},
                      {"attempted", to_json(levels.attempted)},
                      {"not_reached", nullptr}};
    if (levels.not_reached) json["levels"]["not_reached"] = to_json(*levels.not_reached);
    json["by_port"] = nlohmann::ordered_json::object();
    // Its operator[] would look through all ports before, for each port.
    auto& by_port = json["by_port"].get_ref<nlohmann::ordered_json::object_t&>();
    for (std::size_t port = 0; port < port_stats.size(); ++port) {
        const auto& [lookups, accepted, echoed] = port_stats[port];
        if (!is_reached(port_stats[port])) continue;
        const nlohmann::ordered_json figures{{"attempts", lookups}, {"connections", accepted}, {"echoed", echoed}};
        by_port.emplace_back(std::to_string(port), figures);
    }
}

nlohmann::ordered_json to_json(const ServerStatus& server) {
    nlohmann::ordered_json json{{"pid", nullptr},
                                {"pid_in_its_namespace", nullptr},
                                {"version", nullptr},
                                {"user", nullptr},
                                {"uptime_seconds", nullptr},
                                {"program_id", server.program},
                                {"serving", server.state == Instance::State::serving},
                                {"state", state_of(server)},
                                {"listener", nullptr},
                                {"ports", nullptr},
                                {"levels", nullptr},
                                {"addresses", nullptr},
                                {"connections", nullptr},
                                {"bytes", nullptr},
                                {"attempts", nullptr},
                                {"by_port", nullptr}};
    if (server.pid) json["pid"] = *server.pid;
    if (server.identity) {
        json["pid_in_its_namespace"] = server.identity->pid;
        json["version"] = version_of(server);
    }
    if (server.user) json["user"] = *server.user;
    if (server.uptime) json["uptime_seconds"] = std::chrono::duration<double>(*server.uptime).count();
    if (const auto& listener = server.listener)
        json["listener"] = {{"address", to_string(listener->local)},
                            {"waiting", listener->waiting},
                            {"backlog", listener->backlog},
                            {"dropped", listener->dropped}};
    if (server.ports) json["ports"] = to_json(*server.ports);
    if (server.addresses) {
        json["addresses"] = nlohmann::json::array();
        for (const auto& prefix : *server.addresses) json["addresses"].push_back(to_string(prefix));
    }
    if (const auto& counters = server.counters) {
        json["connections"] = {{"open", open_connections(*counters)},
                               {"max", nullptr},
                               {"accepted", counters->accepted},
                               {"refused", counters->refused},
                               {"timed_out", counters->timed_out}};
        if (server.identity) json["connections"]["max"] = server.identity->max_connections;
        json["bytes"] = {{"received", counters->received}, {"sent", counters->sent}};
    }
    if (server.port_stats && server.drops)
        json["attempts"] = {{"steered", attempts(*server.port_stats)},
                            {"dropped",
                             {{"no_socket", (*server.drops)[ECHO_DROP_NO_SOCKET]},
                              {"not_assigned", (*server.drops)[ECHO_DROP_NOT_ASSIGNED]}}}};
    if (server.port_stats) add_reached(json, *server.port_stats, server.ports);
    return json;
}

}  // namespace

std::string to_json(const std::vector<ServerStatus>& servers) {
    nlohmann::ordered_json json{{"instances", nlohmann::json::array()}};
    for (const auto& server : servers) json["instances"].push_back(to_json(server));
    return json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

namespace {

using Status = ServerStatus;
using Value = std::optional<std::uint64_t>;

struct Metric {
    std::string_view name;
    std::string_view type;
    std::string_view help;
    Value (*value)(const Status&);  // nothing where it is not known
};

template <auto member>
Value counter(const Status& server) {
    if (!server.counters) return {};
    return std::uint64_t{(*server.counters).*member};
}

constexpr std::array metrics{
    Metric{"serving", "gauge",
           "1 if connections are steered to it; 0 if it drains, or has lost its program or its socket.",
           [](const Status& s) -> Value { return s.state == Instance::State::serving ? 1 : 0; }},
    Metric{"ports", "gauge", "Ports that are open.",
           [](const Status& s) -> Value { return s.ports ? Value(s.ports->size()) : Value(); }},
    Metric{"backlog_connections", "gauge", "Connections that wait to be accepted.",
           [](const Status& s) -> Value { return s.listener ? Value(s.listener->waiting) : Value(); }},
    Metric{"backlog_dropped_total", "counter", "Connection attempts that the kernel dropped at the socket.",
           [](const Status& s) -> Value { return s.listener ? Value(s.listener->dropped) : Value(); }},
    Metric{"connections_max", "gauge", "How many connections may be open at a time.",
           [](const Status& s) -> Value { return s.identity ? Value(s.identity->max_connections) : Value(); }},
    Metric{"connections", "gauge", "Connections that are open.",
           [](const Status& s) -> Value { return s.counters ? Value(open_connections(*s.counters)) : Value(); }},
    Metric{"connections_accepted_total", "counter", "Connections so far.", counter<&echo_counters::accepted>},
    Metric{"connections_refused_total", "counter", "Connections closed at once for want of memory.",
           counter<&echo_counters::refused>},
    Metric{"connections_timed_out_total", "counter",
           "Connections ended as idle, or as the client acknowledged nothing.", counter<&echo_counters::timed_out>},
    Metric{"received_bytes_total", "counter", "Bytes received from clients.", counter<&echo_counters::received>},
    Metric{"sent_bytes_total", "counter", "Bytes sent back to clients.", counter<&echo_counters::sent>},
    Metric{"attempts_steered_total", "counter",
           "Lookups for which the BPF program gave the socket, which can be several for a connection.",
           [](const Status& s) -> Value { return s.port_stats ? Value(attempts(*s.port_stats)) : Value(); }},
};

std::string label(std::string_view name, std::string_view value) {
    std::string text = fmt::format("{}=\"", name);
    for (const char c : value) {
        if (c == '"' || c == '\\' || c == '\n') text += '\\';
        text += c == '\n' ? 'n' : c;
    }
    return text + '"';
}

std::string header(std::string_view name, std::string_view type, std::string_view help) {
    return fmt::format("# HELP echo_server_{0} {2}\n# TYPE echo_server_{0} {1}\n", name, type, help);
}

std::string sample(std::string_view name, const std::vector<std::string>& labels, std::string_view value) {
    const auto all = labels.empty() ? "" : fmt::format("{{{}}}", fmt::join(labels, ","));
    return fmt::format("echo_server_{}{} {}\n", name, all, value);
}

// The labels that tell servers apart. None without need: if a restart changes a label, each restart begins new series.
std::vector<std::string> labels_of(const Status& server, bool only_one) {
    if (only_one) return {};
    return {label("program", std::to_string(server.program))};
}

// The metrics that are more than a number each.
std::string info(const Status& server) {
    return sample(
        "info",
        {label("program", std::to_string(server.program)), label("pid", server.pid ? std::to_string(*server.pid) : ""),
         label("version", version_of(server)), label("user", server.user.value_or("")),
         label("listener", server.listener ? to_string(server.listener->local) : "")},
        "1");
}

std::string start_time(const Status& server, const std::vector<std::string>& labels) {
    // As the server wrote it at its start: made of its uptime and the clock of now, it would never be the same twice.
    const auto started = server.identity->started_wall;
    if (started == 0) return {};
    return sample("start_time_seconds", labels, fmt::format("{:.3f}", static_cast<double>(started) / 1e9));
}

std::string sample_with(std::string label, std::string_view name, std::vector<std::string> labels,
                        std::uint64_t value) {
    labels.push_back(std::move(label));
    return sample(name, labels, std::to_string(value));
}

std::string drops(const Status& server, const std::vector<std::string>& labels) {
    constexpr std::string_view name = "attempts_dropped_total";
    if (!server.drops) return {};
    const auto& counts = *server.drops;
    return sample_with(label("reason", "no_socket"), name, labels, counts[ECHO_DROP_NO_SOCKET]) +
           sample_with(label("reason", "not_assigned"), name, labels, counts[ECHO_DROP_NOT_ASSIGNED]);
}

std::string levels(const Status& server, const std::vector<std::string>& labels) {
    constexpr std::string_view name = "ports_by_level";
    if (!server.port_stats) return {};
    const auto levels = levels_of(*server.port_stats, server.ports);
    return sample_with(label("level", "echoed"), name, labels, levels.echoed.size()) +
           sample_with(label("level", "connected"), name, labels, levels.connected.size()) +
           sample_with(label("level", "attempted"), name, labels, levels.attempted.size()) +
           (levels.not_reached ? sample_with(label("level", "not_reached"), name, labels, levels.not_reached->size())
                               : "");
}

}  // namespace

std::string to_prometheus(const std::vector<ServerStatus>& servers) {
    std::vector<const Status*> shown;
    for (const auto& server : servers)
        if (server.identity) shown.push_back(&server);
    const bool only_one = shown.size() == 1;
    std::string text;
    // A metric whose value is not known of any server has no header either.
    const auto add = [&](std::string_view name, std::string_view type, std::string_view help, auto samples_of) {
        std::string samples;
        for (const auto* server : shown) samples += samples_of(*server, labels_of(*server, only_one));
        if (!samples.empty()) text += header(name, type, help) + samples;
    };
    add("info", "gauge", "Who serves, and where its one socket is bound.",
        [](const Status& server, const auto&) { return info(server); });
    add("start_time_seconds", "gauge", "When it was started, in seconds since 1970.", start_time);
    for (const Metric& metric : metrics)
        add(metric.name, metric.type, metric.help, [&](const Status& server, const auto& labels) {
            const auto value = metric.value(server);
            return value ? sample(metric.name, labels, std::to_string(*value)) : std::string();
        });
    add("ports_by_level", "gauge",
        "Ports by the highest level that a client has reached there; not_reached: open, and nothing came.", levels);
    add("attempts_dropped_total", "counter", "Connection attempts that the BPF program dropped.", drops);
    return text;
}

}  // namespace echo_server
