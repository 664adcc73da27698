// SPDX-License-Identifier: BSD-2-Clause
#include "status/status.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <sstream>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/text.h"
#include "dispatch/dispatcher.h"

namespace echo_server {

namespace {

using Json = nlohmann::ordered_json;

// The value at a path such as "/listener/address", or `unknown`.
std::string value_at(const Json& json, const std::string& path, const char* unknown = "") {
    const Json::json_pointer pointer(path);
    if (!json.contains(pointer) || json.at(pointer).is_null()) return unknown;
    const auto& value = json.at(pointer);
    if (value.is_boolean()) return value.get<bool>() ? "1" : "0";
    return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string duration(std::int64_t seconds) {
    if (seconds < 60) return fmt::format("{} s", seconds);
    if (seconds < 3600) return fmt::format("{} min {} s", seconds / 60, seconds % 60);
    if (seconds < 86400) return fmt::format("{} h {} min", seconds / 3600, seconds / 60 % 60);
    return fmt::format("{} d {} h", seconds / 86400, seconds / 3600 % 24);
}

bool has_figures(const Status& server) { return !server.port_stats.empty(); }

std::string process_of(const Status& server) {
    return fmt::format("process {}{}{}", value_at(server.json, "/pid_in_its_namespace"),
                       has_figures(server) ? "" : " of another version",
                       !server.json["pid"].is_null() ? ""
                       : server.ended                ? ", which has ended"
                                                     : " of another PID namespace");
}

// By Instance::State.
constexpr std::array state_clauses{"", ", without its listening socket: its ports are closed",
                                   ", with its program detached: its ports are closed",
                                   ", stopped or draining: new connections wait for the next start", ", draining"};

std::string title(const Status& server) {
    const auto& json = server.json;
    const auto& uptime = json["uptime_seconds"];
    return fmt::format("echo-server {}: {}, user {}, up {}{}\n", printable(value_at(json, "/version", "?")),
                       process_of(server), printable(value_at(json, "/user", "?")),
                       uptime.is_null() ? "?" : duration(static_cast<std::int64_t>(uptime.get<double>())),
                       state_clauses.at(static_cast<std::size_t>(server.state)));
}

std::string line(std::string_view name, std::string_view value) { return fmt::format("  {:<11}  {}\n", name, value); }

std::string short_list(const Json& ports) {
    PortSet set;
    std::istringstream list(ports["list"].get<std::string>());
    for (std::string piece; std::getline(list, piece, ',');)
        if (const auto range = parse_range(piece)) set.insert(range->first, range->last);
    return set.to_string(ranges_in_a_line);
}

std::string level_line(std::string_view name, const Json& ports, std::string_view remark = "") {
    if (ports.is_null()) return {};
    const auto count = ports["count"].get<std::size_t>();
    if (count == 0) return line(name, fmt::format("none{}", remark));
    return line(name, fmt::format("{}{}: {}", plural(count, "port"), remark, short_list(ports)));
}

std::string left_out_line(const Json& left_out) {
    std::vector<std::string> parts;
    for (const auto& [key, why] : {std::pair("taken", who_listens), std::pair("host", whose_ports)})
        if (left_out[key]["count"] != 0) parts.push_back(fmt::format("{} ({})", short_list(left_out[key]), why));
    return parts.empty() ? "" : line("left out", fmt::format("{}", fmt::join(parts, ", ")));
}

std::string lines_of(const Status& server) {
    auto text = title(server);
    if (!has_figures(server)) return text;
    const auto& json = server.json;
    if (const auto& ports = json["ports"]; !ports.is_null())
        text += line("ports", fmt::format("{} open: {}", ports["count"].get<std::size_t>(), short_list(ports)));
    if (const auto& left_out = json["left_out"]; !left_out.is_null()) text += left_out_line(left_out);
    const auto& levels = json["levels"];
    text += level_line("echoed", levels["echoed"]) + level_line("connected", levels["connected"], " without an echo") +
            level_line("attempted", levels["attempted"], " without a connection") +
            level_line("not reached", levels["not_reached"]);
    const auto addresses = json["addresses"].get<std::vector<std::string>>();
    text += line("addresses", addresses.empty() ? "any" : fmt::format("{}", fmt::join(addresses, ", ")));
    const auto at = [&](const char* path) { return value_at(json, path); };
    if (!json["listener"].is_null())
        text +=
            line("listener", fmt::format("{}, {} of at most {} waiting, {} not completed", at("/listener/address"),
                                         at("/listener/waiting"), at("/listener/backlog"), at("/listener/dropped")));
    text +=
        line("connections", fmt::format("{} open of at most {}, {} in all, {} out of memory, {} timed out",
                                        at("/connections/open"), at("/connections/max"), at("/connections/accepted"),
                                        at("/connections/refused"), at("/connections/timed_out")));
    text += line("bytes", fmt::format("{} received, {} sent", at("/bytes/received"), at("/bytes/sent")));
    text += line("attempts", fmt::format("{} in all", at("/attempts/steered")));
    text += line("dropped", fmt::format("{} without a socket, {} not taken by the socket",
                                        at("/attempts/dropped/no_socket"), at("/attempts/dropped/not_assigned")));
    return text;
}

// Bytes alone count, too: after SIGUSR2, those of a connection that was open before.
std::vector<std::uint16_t> reached_ports(std::span<const echo_port_stats> port_stats) {
    const auto is_reached = [](const echo_port_stats& port) {
        return std::ranges::any_of(port_figures, [&](auto figure) { return port.*figure != 0; });
    };
    return ports_where(port_stats, is_reached).to_vector();
}

std::string port_table(const Status& server) {
    constexpr std::string_view row = "  {:>5}  {:>10}  {:>11}  {:>10}  {:>12}  {:>12}\n";
    auto text = title(server);
    if (!has_figures(server)) return text + "  its figures by port are unknown\n";
    auto ports = reached_ports(server.port_stats);
    if (ports.empty()) return text + "  no port was reached\n";
    std::ranges::stable_sort(ports, std::greater(), [&](std::uint16_t port) {
        const auto& figures = server.port_stats[port];
        return std::tuple(figures.lookups, figures.accepted, figures.echoed);
    });
    text += fmt::format(row, "port", "attempts", "connections", "with echo", "received", "sent");
    for (const auto port : ports) {
        const auto& figures = server.port_stats[port];
        text +=
            fmt::format(row, port, figures.lookups, figures.accepted, figures.echoed, figures.received, figures.sent);
    }
    return text;
}

std::string text_of_each(const std::vector<Status>& servers, std::string (*text_of)(const Status&)) {
    std::vector<std::string> texts;
    for (const auto& server : servers) texts.push_back(text_of(server));
    return fmt::format("{}", fmt::join(texts, "\n"));
}

struct Metric {
    std::string_view name;
    std::string_view help;
    const char* path;
    const char* label = nullptr;  // for an object: the label that tells its members apart
};

constexpr auto metrics = std::to_array<Metric>({
    {"start_time_seconds", "When it started, in seconds since 1970.", "/start_time"},
    {"serving", "1 if connections are steered to it, and it accepts them.", "/serving"},
    {"ports", "Ports that are open.", "/ports/count"},
    {"backlog_connections", "Connections that wait to be accepted.", "/listener/waiting"},
    {"backlog_dropped_total", "Connection attempts that the kernel dropped at the socket.", "/listener/dropped"},
    {"connections_max", "Limit of open connections.", "/connections/max"},
    {"connections", "Connections that are open.", "/connections/open"},
    {"connections_accepted_total", "Connections accepted so far.", "/connections/accepted"},
    {"connections_refused_total", "Connections closed at once because memory ran out.", "/connections/refused"},
    {"connections_timed_out_total", "Connections closed because they were idle or the client acknowledged nothing.",
     "/connections/timed_out"},
    {"received_bytes_total", "Bytes received from clients.", "/bytes/received"},
    {"sent_bytes_total", "Bytes sent back to clients.", "/bytes/sent"},
    {"attempts_steered_total", "Lookups that got the socket from the BPF program; one connection can need several.",
     "/attempts/steered"},
    {"ports_by_level",
     "Ports by the highest level that a client has reached there; not_reached: open, without any attempt.", "/levels",
     "level"},
    {"attempts_dropped_total", "Connection attempts that the BPF program dropped.", "/attempts/dropped", "reason"},
});

std::string label(std::string_view name, std::string_view value) {
    std::string text = fmt::format("{}=\"", name);
    for (const char c : value) {
        if (c == '"' || c == '\\' || c == '\n') text += '\\';
        text += c == '\n' ? 'n' : c;
    }
    return text + '"';
}

std::string header(std::string_view name, std::string_view help) {
    return fmt::format("# HELP echo_server_{0} {1}\n# TYPE echo_server_{0} {2}\n", name, help,
                       name.ends_with("_total") ? "counter" : "gauge");
}

std::string sample(std::string_view name, const std::vector<std::string>& labels, std::string_view value) {
    if (value.empty()) return {};
    return fmt::format("echo_server_{}{{{}}} {}\n", name, fmt::join(labels, ","), value);
}

// The address of the socket: unlike a process or a program, it is the same after a restart.
std::string listener_of(const Json& json) { return label("listener", value_at(json, "/listener/address")); }

std::string info(const Json& json) {
    std::vector<std::string> labels{listener_of(json)};
    for (const std::string name : {"pid", "version", "user"}) labels.push_back(label(name, value_at(json, "/" + name)));
    return sample("info", labels, "1");
}

std::string samples_of(const Metric& metric, const Json& json, std::vector<std::string> labels) {
    if (metric.label == nullptr) return sample(metric.name, labels, value_at(json, metric.path));
    const Json::json_pointer path(metric.path);
    if (!json.contains(path)) return {};
    std::string samples;
    labels.emplace_back();
    for (const auto& [name, value] : json.at(path).items()) {
        labels.back() = label(metric.label, name);
        samples += sample(metric.name, labels, value_at(value, value.is_object() ? "/count" : ""));
    }
    return samples;
}

}  // namespace

std::string to_text(const std::vector<Status>& servers) { return text_of_each(servers, lines_of); }

std::string to_port_table(const std::vector<Status>& servers) { return text_of_each(servers, port_table); }

std::string to_json(const std::vector<Status>& servers) {
    Json all{{"instances", Json::array()}};
    for (const auto& server : servers) {
        auto json = server.json;
        json.erase("start_time");
        if (has_figures(server)) {
            // operator[] would search through all earlier ports each time.
            Json::object_t by_port;
            for (const auto port : reached_ports(server.port_stats)) {
                const auto& [lookups, accepted, echoed, left_out, received, sent] = server.port_stats[port];
                Json figures{{"attempts", lookups}, {"connections", accepted}, {"echoed", echoed}};
                figures.update({{"received", received}, {"sent", sent}});
                by_port.emplace_back(std::to_string(port), std::move(figures));
            }
            json["by_port"] = std::move(by_port);
        }
        all["instances"].push_back(std::move(json));
    }
    return all.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

std::string to_prometheus(const std::vector<Status>& servers) {
    // Two samples with the same labels are an error. So show only the newest of the servers with the same socket (in a
    // replacement), and of those without a socket.
    std::map<std::string, const Json*> newest;
    for (const auto& server : servers) newest[listener_of(server.json)] = &server.json;
    if (newest.empty()) return {};
    auto text = header("info", "The server, and the address of its one socket.");
    for (const auto& [listener, json] : newest) text += info(*json);
    for (const Metric& metric : metrics) {
        std::string samples;
        for (const auto& [listener, json] : newest) samples += samples_of(metric, *json, {listener});
        // No header either if no server's value is known.
        if (!samples.empty()) text += header(metric.name, metric.help) + samples;
    }
    return text;
}

}  // namespace echo_server
