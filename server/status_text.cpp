// SPDX-License-Identifier: BSD-2-Clause
#include "status_text.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "endpoint.h"
#include "status_figures.h"

namespace {

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
