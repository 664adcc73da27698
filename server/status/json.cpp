// SPDX-License-Identifier: BSD-2-Clause
#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>

#include "net/address.h"
#include "status/figures.h"
#include "status/format.h"

namespace echo_server {
namespace {

std::string_view state_of(const ServerStatus& server) {
    switch (server.state) {
        case RunningServer::State::serving: return "serving";
        case RunningServer::State::socketless: return "without socket";
        case RunningServer::State::detached: return "detached";
        case RunningServer::State::waiting: return "waiting";
        case RunningServer::State::draining: return "draining";
    }
    return "";
}

nlohmann::ordered_json to_json(const PortSet& ports) { return {{"count", ports.size()}, {"list", ports.to_string()}}; }

void add_reached(nlohmann::ordered_json& json, const std::vector<echo_reached>& reached,
                 const std::optional<PortSet>& ports) {
    const auto levels = levels_of(reached, ports);
    json["levels"] = {{"echoed", to_json(levels.echoed)},
                      {"connected", to_json(levels.connected)},
                      {"attempted", to_json(levels.attempted)},
                      {"not_reached", nullptr}};
    if (levels.not_reached) json["levels"]["not_reached"] = to_json(*levels.not_reached);
    json["by_port"] = nlohmann::ordered_json::object();
    // Its operator[] would look through all ports before, for each port.
    auto& by_port = json["by_port"].get_ref<nlohmann::ordered_json::object_t&>();
    for (std::size_t port = 0; port < reached.size(); ++port) {
        const auto& [steered, accepted, echoed] = reached[port];
        if (!is_reached(reached[port])) continue;
        const nlohmann::ordered_json figures{{"attempts", steered}, {"connections", accepted}, {"echoed", echoed}};
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
                                {"serving", server.state == RunningServer::State::serving},
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
    if (server.reached && server.drops)
        json["attempts"] = {{"steered", attempts(*server.reached)},
                            {"dropped",
                             {{"no_socket", (*server.drops)[ECHO_DROP_NO_SOCKET]},
                              {"not_assigned", (*server.drops)[ECHO_DROP_NOT_ASSIGNED]}}}};
    if (server.reached) add_reached(json, *server.reached, server.ports);
    return json;
}

}  // namespace

std::string to_json(const std::vector<ServerStatus>& servers) {
    nlohmann::ordered_json json{{"instances", nlohmann::json::array()}};
    for (const auto& server : servers) json["instances"].push_back(to_json(server));
    return json.dump(2, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace echo_server
