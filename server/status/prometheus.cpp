// SPDX-License-Identifier: BSD-2-Clause
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "net/address.h"
#include "status/figures.h"
#include "status/format.h"

namespace echo_server {
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
           [](const Status& s) -> Value { return s.state == RunningServer::State::serving ? 1 : 0; }},
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
           [](const Status& s) -> Value { return s.reached ? Value(attempts(*s.reached)) : Value(); }},
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
    if (!server.reached) return {};
    const auto levels = levels_of(*server.reached, server.ports);
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
