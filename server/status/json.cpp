// SPDX-License-Identifier: BSD-2-Clause
#include <chrono>
#include <nlohmann/json.hpp>
#include <string_view>

#include "net/address.h"
#include "status/figures.h"
#include "status/format.h"

namespace echo_server {

namespace {

std::string_view state_of(const InstanceStatus& one) {
    switch (one.state) {
        case Instance::State::serving: return "serving";
        case Instance::State::socketless: return "without socket";
        case Instance::State::detached: return "detached";
        case Instance::State::draining: return "draining";
    }
    return "";
}

nlohmann::ordered_json to_json(const InstanceStatus& one) {
    nlohmann::ordered_json json{{"pid", nullptr},
                                {"pid_in_its_namespace", nullptr},
                                {"version", nullptr},
                                {"user", nullptr},
                                {"uptime_seconds", nullptr},
                                {"program_id", one.program},
                                {"serving", one.state == Instance::State::serving},
                                {"state", state_of(one)},
                                {"listener", nullptr},
                                {"ports", nullptr},
                                {"addresses", nullptr},
                                {"connections", nullptr},
                                {"bytes", nullptr},
                                {"attempts", nullptr}};
    if (one.pid) json["pid"] = *one.pid;
    if (one.identity) {
        json["pid_in_its_namespace"] = one.identity->pid;
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
        json["connections"] = {{"open", open_connections(*counters)},
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

}  // namespace echo_server
