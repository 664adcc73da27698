// SPDX-License-Identifier: BSD-2-Clause
#include "service/port_plan.h"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "net/ephemeral_ports.h"
#include "net/socket_diag.h"
#include "service/port_conflicts.h"
#include "service/ports_file.h"

namespace echo_server {
namespace {

PortSet wanted_ports(const Options& options, const User& user) {
    PortList list = options.ports;
    if (options.ports_file) list.add(read_ports_file(*options.ports_file, user));
    PortSet ports = list.ports();
    if (ports.empty())
        throw std::runtime_error(
            fmt::format("reading ports file {}: after the exclusions no port is left", *options.ports_file));
    if (!options.allow_ephemeral) check_ephemeral_ports(ports);
    return ports;
}

// Throws if another socket listens on one of `ports`, unless --shadow-listeners allows it. Returns warnings.
std::vector<std::string> check_listeners(const Options& options, const PortSet& ports, std::uint64_t listener_cookie) {
    std::vector<ListeningSocket> others;
    try {
        others = shadowed(listening_sockets(), ports, options.addresses, listener_cookie);
    } catch (const std::runtime_error& error) {
        if (options.shadow_listeners) return {fmt::format("{}; ports may be taken from other listeners", error.what())};
        throw std::runtime_error(
            fmt::format("{}. --shadow-listeners starts without knowing whom a port is taken from", error.what()));
    }
    if (others.empty()) return {};
    if (!options.shadow_listeners) throw std::runtime_error(explain_refusal(others));
    return {explain_shadowing(others)};
}

}  // namespace

std::string describe_open(const PortSet& ports) {
    return fmt::format("{} open: {}", plural(ports.size(), "TCP port"), ports.to_string(ranges_in_a_line));
}

std::string describe_status(const PortSet& ports, const std::string& failure) {
    return failure.empty() ? describe_open(ports)
                           : fmt::format("{}; the last reload failed: {}", describe_open(ports), failure);
}

std::string explain_unreadable(const Options& options, const User& user) {
    if (!options.ports_file) return {};
    const auto why = why_not_readable(*options.ports_file, user);
    if (why.empty()) return {};
    return fmt::format(
        "user {} can't read {} ({}): SIGHUP will fail; let that user read it, or choose another by --user", user.name,
        *options.ports_file, why);
}

PortPlan plan_first_ports(const Options& options, const User& user, std::uint64_t listener_cookie) {
    auto plan = plan_ports(options, user, {}, listener_cookie);
    if (auto warning = explain_unreadable(options, user); !warning.empty()) plan.warnings.push_back(std::move(warning));
    return plan;
}

PortPlan plan_ports(const Options& options, const User& user, const PortSet& open, std::uint64_t listener_cookie) {
    PortPlan plan{.ports = wanted_ports(options, user), .warnings = {}};
    plan.warnings = check_listeners(options, plan.ports - open, listener_cookie);
    return plan;
}

}  // namespace echo_server
