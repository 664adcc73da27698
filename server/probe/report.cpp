// SPDX-License-Identifier: BSD-2-Clause
#include "probe/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <utility>

#include "base/text.h"

namespace echo_server {
namespace {

using Json = nlohmann::json;  // its objects are maps, which are fast with a million members, too
using Ports = std::vector<std::uint16_t>;

PortSet to_ports(const Json& ports) {
    PortSet set;
    std::istringstream list(ports.at("list").get<std::string>());
    for (std::string piece; std::getline(list, piece, ',');)
        if (const auto range = parse_range(piece)) set.insert(range->first, range->last);
    return set;
}

void add_server(ServerSide& side, const Json& server) {
    for (const auto& [name, figures] : server.at("by_port").items()) {
        const auto port = parse_number<std::uint16_t>(name);
        if (!port) throw std::runtime_error(fmt::format("{} is not a port", quote(name)));
        side.by_port[*port].attempts += figures.at("attempts").get<std::uint64_t>();
        side.by_port[*port].received += figures.at("received").get<std::uint64_t>();
    }
    // A server that drains has no ports.
    if (const auto& ports = server.at("ports"); !ports.is_null()) side.open = side.open | to_ports(ports);
    if (const auto& left_out = server.at("left_out"); !left_out.is_null()) {
        side.taken = side.taken | to_ports(left_out.at("taken"));
        side.hosts = side.hosts | to_ports(left_out.at("host"));
    }
}

// By Verdict.
constexpr std::array names{"echoed", "altered", "cut", "silent", "refused", "unreachable", "filtered", "not probed"};

// The verdict, the tries if the port echoes, the detail, and the reading.
using Findings = std::tuple<Verdict, int, std::string, std::string>;
using Group = std::pair<Findings, Ports>;  // ports with the same findings

PortSet set_of(const Ports& ports) {
    PortSet set;
    for (const auto port : ports) set.insert(port);
    return set;
}

// Ordered by verdict, then the largest first.
std::vector<Group> groups_of(const Report& report) {
    std::map<Findings, Ports> by_findings;
    for (const auto port : report.ports.to_vector()) {
        const auto& result = report.results[port];
        const auto reading = report.server ? reading_of(port, result, *report.server) : "";
        const int tries = result.verdict == Verdict::echoed ? result.tries : 0;
        by_findings[{result.verdict, tries, result.detail, reading}].push_back(port);
    }
    std::vector<Group> groups(by_findings.begin(), by_findings.end());
    std::ranges::stable_sort(groups, {}, [](const Group& one) {
        return std::tuple(std::get<Verdict>(one.first), std::get<int>(one.first), 65536 - one.second.size());
    });
    return groups;
}

std::string line_of(const Group& group) {
    const auto& [verdict, tries, detail, reading] = group.first;
    auto text = plural(group.second.size(), "port");
    if (tries > 1)
        text += fmt::format(", at the {} try (a rate limit, or loss)", tries == 2   ? "second"
                                                                       : tries == 3 ? "third"
                                                                                    : "last");
    for (const auto& part : {detail, reading})
        if (!part.empty()) text += ", " + part;
    return fmt::format("  {:<11}  {}: {}\n", names.at(static_cast<std::size_t>(verdict)), text,
                       set_of(group.second).to_string(ranges_in_a_line));
}

}  // namespace

ServerSide parse_status(const std::string& output) {
    ServerSide side;
    try {
        const auto status = Json::parse(output);
        if (status.at("instances").empty()) throw std::runtime_error("no server runs there");
        for (const auto& server : status.at("instances")) add_server(side, server);
    } catch (const std::exception& error) {
        std::string_view why = error.what();
        if (why.starts_with("[json.")) why.remove_prefix(why.find(' ') + 1);  // the library's name of the error
        throw std::runtime_error(fmt::format(
            "reading the server's status: {}; give the whole output of 'echo-server status --json', of this version",
            printable(why)));
    }
    side.taken = side.taken - side.open;
    side.hosts = side.hosts - side.open;
    return side;
}

ServerSide difference(const ServerSide& before, ServerSide after) {
    // If a figure is smaller now, it was reset in between, and counts from 0.
    const auto subtract = [](std::uint64_t& now, std::uint64_t then) { now -= now >= then ? then : 0; };
    for (std::size_t port = 0; port < after.by_port.size(); ++port) {
        subtract(after.by_port[port].attempts, before.by_port[port].attempts);
        subtract(after.by_port[port].received, before.by_port[port].received);
    }
    return after;
}

std::string reading_of(std::uint16_t port, const PortResult& result, const ServerSide& server) {
    const auto& [attempts, received] = server.by_port.at(port);
    const auto verdict = result.verdict;
    if (verdict == Verdict::not_probed) return "";
    if (verdict == Verdict::echoed) return received != 0 ? "through" : "but not by this server on this port";
    if (server.taken.contains(port)) return fmt::format("left out by the server: {}", who_listens);
    if (server.hosts.contains(port)) return fmt::format("left out by the server: {}", whose_ports);

    const bool has_arrived = attempts + received != 0;
    if (!has_arrived && !server.open.contains(port)) return "not open at the server";
    const auto* const where = has_arrived ? "back" : "to the server";
    if (verdict == Verdict::filtered)
        return fmt::format("{} lost on the way {}", has_arrived ? "answer" : "SYN", where);
    if (verdict == Verdict::refused) return fmt::format("rejected on the way {}, by a RST", where);
    if (verdict == Verdict::unreachable) return fmt::format("rejected on the way {}, by ICMP", where);

    // The server has not sent the bytes that came back.
    if (!has_arrived || (verdict == Verdict::altered && received == 0)) return "answered by something else on the way";
    if (verdict == Verdict::altered)
        return received < result.sent ? "altered on the way to the server" : "altered on the way to the server or back";
    const bool is_all = received != 0 && received >= result.sent;
    return fmt::format("{} on the way {}", verdict == Verdict::cut ? "cut" : "data lost",
                       is_all ? "back" : "to the server");
}

PortSet Report::echoed() const {
    PortSet set;
    for (const auto& [findings, some] : groups_of(*this))
        if (std::get<Verdict>(findings) == Verdict::echoed && (!server || std::get<3>(findings) == "through"))
            set = set | set_of(some);
    return set;
}

bool Report::is_as_expected() const { return echoed() == (options.expect.empty() ? ports : options.expect.ports()); }

std::string Report::to_text() const {
    const auto& host = options.host;
    auto text = fmt::format("probe of {}{}: {}, {} on each, {:.1f} s{}\n", printable(host),
                            host == address ? "" : fmt::format(" ({})", address), plural(ports.size(), "port"),
                            plural(payload_size, "byte"), seconds, is_complete ? "" : ", ended before all was done");
    std::map<Verdict, int> lines;
    int left_out = 0;
    for (const auto& group : groups_of(*this)) {
        const bool is_shown = ++lines[std::get<Verdict>(group.first)] <= 16;
        text += is_shown ? line_of(group) : "";
        left_out += is_shown ? 0 : 1;
    }
    if (left_out > 0) text += fmt::format("  and {} more such lines: --json has all\n", left_out);
    if (!options.status.empty())
        text += "The server's side counts all its clients since its start, or since SIGUSR2.\n";
    if (options.expect.empty()) return text;
    const auto missing = options.expect.ports() - echoed();
    const auto others = echoed() - options.expect.ports();
    if (!missing.empty()) text += fmt::format("expected, and not echoed: {}\n", missing.to_string());
    if (!others.empty()) text += fmt::format("echoed, and not expected: {}\n", others.to_string());
    return text;
}

std::string Report::to_json() const {
    Json groups = Json::array();
    for (const auto& [findings, some] : groups_of(*this)) {
        const auto& [verdict, tries, detail, reading] = findings;
        groups.push_back({{"verdict", names.at(static_cast<std::size_t>(verdict))},
                          {"try", tries == 0 ? Json() : Json(tries)},
                          {"detail", detail},
                          {"reading", server ? Json(reading) : Json()},
                          {"count", some.size()},
                          {"list", set_of(some).to_string()}});
    }
    const nlohmann::ordered_json json{
        {"host", options.host}, {"address", address},      {"payload_bytes", payload_size},
        {"seconds", seconds},   {"complete", is_complete}, {"as_expected", is_complete && is_as_expected()},
        {"results", groups}};
    return json.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

}  // namespace echo_server
