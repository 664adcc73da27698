// SPDX-License-Identifier: BSD-2-Clause
#include "status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string_view>
#include <utility>

#include "endpoint.h"
#include "text.h"

namespace {

using Count = std::uint64_t;

Count sum(const std::vector<Count>& counts) { return std::accumulate(counts.begin(), counts.end(), Count{0}); }

struct PortCount {
    std::uint16_t port;
    Count count;
};

// Of ports with any, highest first.
std::vector<PortCount> busiest(const std::vector<Count>& counts) {
    constexpr std::size_t most = 10;
    std::vector<PortCount> found;
    for (std::size_t port = 0; port < counts.size(); ++port)
        if (counts[port] > 0) found.push_back({static_cast<std::uint16_t>(port), counts[port]});
    std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.count > b.count; });
    if (found.size() > most) found.resize(most);
    return found;
}

PortSet reached(const std::vector<Count>& counts) {
    PortSet ports;
    for (std::size_t port = 0; port < counts.size(); ++port)
        if (counts[port] > 0) ports.insert(static_cast<std::uint16_t>(port));
    return ports;
}

std::string version_of(const InstanceStatus& one) { return one.identity ? printable(one.identity->version) : "?"; }

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

double start_time(const InstanceStatus& one) {
    const auto start = std::chrono::system_clock::now().time_since_epoch() - *one.uptime;
    return std::chrono::duration<double>(start).count();
}

}  // namespace

std::string to_text(const std::vector<InstanceStatus>& instances) {
    constexpr std::size_t ranges = 16;
    std::string text;
    const auto line = [&]<typename... Args>(fmt::format_string<Args...> format, Args&&... args) {
        text += fmt::format(format, std::forward<Args>(args)...) + "\n";
    };
    for (const auto& one : instances) {
        if (!text.empty()) text += "\n";
        const auto process = one.identity ? fmt::format("process {}", one.identity->pid)
                                          : fmt::format("BPF program {} of another version", one.program);
        line("echo-server {}: {}, user {}, up {}{}", version_of(one), process, one.user.value_or("?"),
             one.uptime ? duration(*one.uptime) : "?", one.serving ? "" : ", draining");
        if (one.listener)
            line("  listener     {}, {} of at most {} waiting, {} dropped", to_string(one.listener->local),
                 one.listener->waiting, one.listener->backlog, one.listener->dropped);
        if (one.ports && one.serving)
            line("  ports        {} open: {}", one.ports->size(), one.ports->to_string(ranges));
        line("  addresses    {}", addresses_of(one));
        if (const auto& counters = one.counters) {
            line("  connections  {} open of at most {}, {} in all, {} refused, {} timed out", counters->open,
                 one.identity ? one.identity->max_connections : 0, counters->accepted, counters->refused,
                 counters->timed_out);
            line("  bytes        {} received, {} sent", counters->received, counters->sent);
        }
        if (one.drops)
            line("  dropped      {} without a socket, {} not taken by the socket", (*one.drops)[ECHO_DROP_NO_SOCKET],
                 (*one.drops)[ECHO_DROP_NOT_ASSIGNED]);
        if (!one.steered) continue;
        const auto ports = reached(*one.steered);
        line("  attempts     {} on {} port{}: {}", sum(*one.steered), ports.size(), ports.size() == 1 ? "" : "s",
             ports.to_string(ranges));
        std::string list;
        for (const auto& [port, count] : busiest(*one.steered))
            list += fmt::format("{}{} ({})", list.empty() ? "" : ", ", port, count);
        if (!list.empty()) line("  busiest      {}", list);
    }
    return text;
}

namespace {

nlohmann::ordered_json to_json(const InstanceStatus& one) {
    nlohmann::ordered_json json{{"pid", nullptr},
                                {"version", nullptr},
                                {"user", nullptr},
                                {"uptime_seconds", nullptr},
                                {"program_id", one.program},
                                {"serving", one.serving},
                                {"listener", nullptr},
                                {"ports", nullptr},
                                {"addresses", nullptr},
                                {"connections", nullptr},
                                {"bytes", nullptr},
                                {"attempts", nullptr}};
    if (one.identity) {
        json["pid"] = one.identity->pid;
        json["version"] = version_of(one);
    }
    if (one.user) json["user"] = *one.user;
    if (one.uptime) json["uptime_seconds"] = std::chrono::duration<double>(*one.uptime).count();
    if (const auto& listener = one.listener)
        json["listener"] = {{"address", to_string(listener->local)},
                            {"waiting", listener->waiting},
                            {"backlog", listener->backlog},
                            {"dropped", listener->dropped}};
    if (one.ports) json["ports"] = {{"count", one.ports->size()}, {"list", one.ports->to_string()}};
    if (one.addresses) {
        json["addresses"] = nlohmann::json::array();
        for (const auto& prefix : *one.addresses) json["addresses"].push_back(to_string(prefix));
    }
    if (const auto& counters = one.counters) {
        json["connections"] = {{"open", counters->open},
                               {"max", nullptr},
                               {"accepted", counters->accepted},
                               {"refused", counters->refused},
                               {"timed_out", counters->timed_out}};
        if (one.identity) json["connections"]["max"] = one.identity->max_connections;
        json["bytes"] = {{"received", counters->received}, {"sent", counters->sent}};
    }
    if (one.steered && one.drops) {
        json["attempts"] = {{"steered", sum(*one.steered)},
                            {"dropped",
                             {{"no_socket", (*one.drops)[ECHO_DROP_NO_SOCKET]},
                              {"not_assigned", (*one.drops)[ECHO_DROP_NOT_ASSIGNED]}}},
                            {"steered_by_port", nlohmann::json::object()}};
        for (const auto port : reached(*one.steered).to_vector())
            json["attempts"]["steered_by_port"][std::to_string(port)] = (*one.steered)[port];
    }
    return json;
}

}  // namespace

std::string to_json(const std::vector<InstanceStatus>& instances) {
    nlohmann::ordered_json json{{"instances", nlohmann::json::array()}};
    for (const auto& one : instances) json["instances"].push_back(to_json(one));
    return json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

namespace {

std::string label(std::string_view name, std::string_view value) {
    std::string text = fmt::format("{}=\"", name);
    for (const char c : value) {
        if (c == '"' || c == '\\') text += '\\';
        text += c;
    }
    return text + '"';
}

// A metric of every instance: its header, and the samples that `sample` adds by calling its argument with further labels
// and the value.
using Sampler = std::function<void(const InstanceStatus&, const std::function<void(std::string, std::string)>&)>;

std::string metric(const std::vector<InstanceStatus>& instances, std::string_view name, std::string_view type,
                   std::string_view help, const Sampler& sample) {
    std::string samples;
    for (const auto& one : instances) {
        if (!one.identity) continue;
        sample(one, [&](const std::string& labels, const std::string& value) {
            samples += fmt::format("echo_server_{}{{pid=\"{}\"{}{}}} {}\n", name, one.identity->pid,
                                   labels.empty() ? "" : ",", labels, value);
        });
    }
    if (samples.empty()) return {};
    return fmt::format("# HELP echo_server_{0} {2}\n# TYPE echo_server_{0} {1}\n{3}", name, type, help, samples);
}

}  // namespace

std::string to_prometheus(const std::vector<InstanceStatus>& instances) {
    std::string text;
    const auto add = [&](std::string_view name, std::string_view type, std::string_view help, const Sampler& sample) {
        text += metric(instances, name, type, help, sample);
    };
    // One figure out of a part of the status, if that part is known.
    const auto add_figure = [&](std::string_view name, std::string_view type, std::string_view help, auto part,
                                auto figure) {
        add(name, type, help, [=](const InstanceStatus& one, const auto& sample) {
            if (one.*part) sample("", fmt::format("{}", figure(*(one.*part))));
        });
    };
    using Status = InstanceStatus;
    add("info", "gauge", "Who serves, and where its one socket is bound.", [](const Status& one, const auto& sample) {
        sample(label("version", version_of(one)) + "," + label("user", one.user.value_or("")) + "," +
                   label("listener", one.listener ? to_string(one.listener->local) : ""),
               "1");
    });
    add("start_time_seconds", "gauge", "When it was started, in seconds since 1970.",
        [](const Status& one, const auto& sample) {
            if (one.uptime) sample("", fmt::format("{:.3f}", start_time(one)));
        });
    add("serving", "gauge", "1 if connections are steered to it, 0 if it drains.",
        [](const Status& one, const auto& sample) { sample("", one.serving ? "1" : "0"); });
    add_figure("ports", "gauge", "Ports that are open.", &Status::ports,
               [](const auto& ports) { return ports.size(); });
    add_figure("backlog_connections", "gauge", "Connections that wait to be accepted.", &Status::listener,
               [](const auto& listener) { return listener.waiting; });
    add_figure("backlog_dropped_total", "counter", "Connection attempts that the kernel dropped at the socket.",
               &Status::listener, [](const auto& listener) { return listener.dropped; });
    add_figure("connections_max", "gauge", "How many connections may be open at a time.", &Status::identity,
               [](const auto& identity) { return identity.max_connections; });
    const auto add_counter = [&](std::string_view name, std::string_view type, std::string_view help, auto member) {
        add_figure(name, type, help, &Status::counters, [=](const auto& counters) { return Count{counters.*member}; });
    };
    add_counter("connections", "gauge", "Connections that are open.", &echo_counters::open);
    add_counter("connections_accepted_total", "counter", "Connections so far.", &echo_counters::accepted);
    add_counter("connections_refused_total", "counter", "Connections closed at once for want of memory.",
                &echo_counters::refused);
    add_counter("connections_timed_out_total", "counter", "Connections ended as they were idle.",
                &echo_counters::timed_out);
    add_counter("received_bytes_total", "counter", "Bytes received from clients.", &echo_counters::received);
    add_counter("sent_bytes_total", "counter", "Bytes sent back to clients.", &echo_counters::sent);
    add("attempts_dropped_total", "counter", "Connection attempts that the BPF program dropped.",
        [](const Status& one, const auto& sample) {
            if (!one.drops) return;
            sample(label("reason", "no_socket"), fmt::format("{}", (*one.drops)[ECHO_DROP_NO_SOCKET]));
            sample(label("reason", "not_assigned"), fmt::format("{}", (*one.drops)[ECHO_DROP_NOT_ASSIGNED]));
        });
    add_figure("attempts_steered_total", "counter", "Connection attempts that the BPF program gave to the socket.",
               &Status::steered, sum);
    add("port_attempts_steered_total", "counter", "The same by port, of the busiest ports.",
        [](const Status& one, const auto& sample) {
            if (!one.steered) return;
            for (const auto& [port, count] : busiest(*one.steered))
                sample(label("port", std::to_string(port)), fmt::format("{}", count));
        });
    return text;
}
