// SPDX-License-Identifier: BSD-2-Clause
#include "status/status.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/text.h"
#include "dispatch/dispatcher.h"

namespace echo_server {

namespace {

using Json = nlohmann::ordered_json;

Json list_of(const PortSet& ports) { return {{"count", ports.size()}, {"list", ports.to_string()}}; }

// The first `count` values of an array; zeroes where it has fewer.
template <typename Value>
std::vector<Value> read_values(const MapHandle& map, __u32 count) {
    std::vector<__u32> keys(count);
    std::vector<Value> values(count);
    __u32 position = 0;
    const int error =
        bpf_map_lookup_batch(map.fd.get(), nullptr, &position, keys.data(), values.data(), &count, nullptr);
    if (error != 0 && error != -ENOENT) map.fail_to_read(-error);
    return values;
}

// The sum over the threads of a server.
echo_counters read_counters(const MapHandle& map) {
    echo_counters sum{};
    echo_counters of_thread{};
    // Reads the first thread last, because only it counts accepted connections: so `accepted` is never below `ended`.
    for (auto thread = std::min<__u32>(map.info.max_entries, ECHO_MAX_THREADS); thread-- > 0;) {
        map.read(thread, &of_thread, sizeof(of_thread));
        for (auto member : {&echo_counters::ended, &echo_counters::accepted, &echo_counters::refused,
                            &echo_counters::timed_out, &echo_counters::received, &echo_counters::sent})
            sum.*member += of_thread.*member;
    }
    return sum;
}

// The levels of a port are, from the highest: echoed, connected, attempted. A port is in the highest that a client has
// reached there, even if it is closed now. The other `open` ports, if they are known, are not reached.
Json levels_of(std::span<const echo_port_stats> port_stats, const std::optional<PortSet>& open) {
    const auto echoed = ports_where(port_stats, [](const auto& port) { return port.echoed != 0; });
    const auto accepted = ports_where(port_stats, [](const auto& port) { return port.accepted != 0; });
    const auto steered = ports_where(port_stats, [](const auto& port) { return port.lookups != 0; });
    return {{"echoed", list_of(echoed)},
            {"connected", list_of(accepted - echoed)},
            {"attempted", list_of(steered - accepted - echoed)},
            {"not_reached", open ? list_of(*open - echoed - accepted - steered) : Json()}};
}

Json left_out_of(std::span<const echo_port_stats> port_stats) {
    const auto taken = ports_where(port_stats, [](const auto& port) { return port.left_out == ECHO_LEFT_OUT_TAKEN; });
    const auto all = ports_where(port_stats, [](const auto& port) { return port.left_out != ECHO_NOT_LEFT_OUT; });
    return {{"taken", list_of(taken)}, {"host", list_of(all - taken)}};
}

void add_identity(Status& status, const echo_instance& identity) {
    auto& json = status.json;
    json["pid_in_its_namespace"] = identity.pid;
    json["version"] = printable(identity.version);
    // From the server: computed from the uptime and the present time, it would differ each time.
    if (identity.started_wall != 0)
        json["start_time"] = fmt::format("{:.3f}", static_cast<double>(identity.started_wall) / 1e9);
    status.ended = has_ended(identity);
    if (status.ended) return;
    if (in_this_pid_namespace(identity)) {
        json["pid"] = identity.pid;
        const auto user = proc_is_ours() ? user_of(static_cast<pid_t>(identity.pid)) : std::nullopt;
        if (user) json["user"] = user->name;
    }
    // The process wrote it, so it may be wrong.
    const auto now = time_of(CLOCK_BOOTTIME);
    if (identity.started <= static_cast<std::uint64_t>(now.count()))
        json["uptime_seconds"] =
            std::chrono::duration<double>(now - std::chrono::nanoseconds(identity.started)).count();
}

// Of a server of this version.
void add_figures(Status& status, const Instance& server) {
    auto& json = status.json;
    json["addresses"] = Json::array();
    for (const auto& prefix : read_addresses(*server.map("echo_addresses")))
        json["addresses"].push_back(to_string(prefix));
    const auto counters = read_counters(*server.map("echo_counters"));
    json["connections"] = {{"open", counters.accepted - std::min(counters.accepted, counters.ended)},
                           {"max", server.identity.max_connections},
                           {"accepted", counters.accepted},
                           {"refused", counters.refused},
                           {"timed_out", counters.timed_out}};
    json["bytes"] = {{"received", counters.received}, {"sent", counters.sent}};
    status.port_stats = read_values<echo_port_stats>(*server.map("echo_port_stats"), 65536);
    status.port_stats[0] = {};  // the comment of echo_port_stats says why
    std::uint64_t lookups = 0;
    for (const auto& figures : status.port_stats) lookups += figures.lookups;
    const auto drops = read_values<std::uint64_t>(*server.map("echo_drops"), ECHO_DROP_REASONS);
    json["attempts"] = {
        {"steered", lookups},
        {"dropped", {{"no_socket", drops[ECHO_DROP_NO_SOCKET]}, {"not_assigned", drops[ECHO_DROP_NOT_ASSIGNED]}}}};
}

// Whether the process has that socket open as its listener. A draining process has closed it, and systemd may keep it.
bool has_listener(const Status& status, const Instance& server, std::uint32_t inode) {
    if (status.ended) return false;
    if (status.json["pid"].is_null() || !proc_is_ours()) return true;  // not known
    std::error_code error;
    const auto path = fmt::format("/proc/{}/fd/{}", server.identity.pid, server.identity.listener);
    const auto target = std::filesystem::read_symlink(path, error);
    if (error && error != std::errc::no_such_file_or_directory) return true;  // no right to look there
    return target == fmt::format("socket:[{}]", inode);
}

void add_listener(Status& status, const Instance& server, const std::vector<ListeningSocket>& sockets) {
    const auto listener = std::ranges::find(sockets, server.listener_cookie(), &ListeningSocket::cookie);
    if (listener == sockets.end()) {
        status.state = Instance::State::socketless;  // the map keeps a destroyed socket
        return;
    }
    status.json["listener"] = {{"address", to_string(listener->local)},
                               {"waiting", listener->waiting},
                               {"backlog", listener->backlog},
                               {"dropped", listener->dropped}};
    if (status.state == Instance::State::serving && !has_listener(status, server, listener->inode))
        status.state = Instance::State::waiting;
}

// By Instance::State.
constexpr std::array state_names{"serving", "without socket", "detached", "waiting", "draining"};

// The processes are read after the search for servers. If a second search finds others, a replacement is under way, and
// a server may seem to have lost its socket: look again.
std::vector<Status> read_all() {
    const auto seen = [](const Instance& server) { return std::pair(server.program, server.state); };
    auto servers = find_instances();
    for (int looks_left = 10;; --looks_left) {
        auto all = read_statuses(servers);
        auto now = find_instances();
        if (looks_left == 0 || std::ranges::equal(now, servers, {}, seen, seen)) return all;
        servers = std::move(now);
    }
}

}  // namespace

PortSet ports_where(std::span<const echo_port_stats> port_stats, bool (*condition)(const echo_port_stats& figures)) {
    PortSet ports;
    for (std::size_t port = 0; port < port_stats.size(); ++port)
        if (condition(port_stats[port])) ports.insert(static_cast<std::uint16_t>(port));
    return ports;
}

Status read_status(const Instance& server, const std::optional<std::vector<ListeningSocket>>& sockets) {
    Status status{.json = {}, .state = server.state, .port_stats = {}};
    auto& json = status.json;
    for (const auto* key :
         {"pid", "pid_in_its_namespace", "version", "user", "uptime_seconds", "program_id", "serving", "state",
          "listener", "ports", "left_out", "levels", "addresses", "connections", "bytes", "attempts", "by_port"})
        json[key] = nullptr;
    json["program_id"] = server.program;
    add_identity(status, server.identity);
    const bool known = server.is_of_this_version();
    if (known) add_figures(status, server);
    if (sockets && server.state != Instance::State::draining) add_listener(status, server, *sockets);
    const bool serving = status.state == Instance::State::serving;
    if (known) {
        std::optional<PortSet> ports;
        if (serving || status.state == Instance::State::waiting) {
            ports = read_ports(server.map("echo_ports")->fd.get());
            json["ports"] = list_of(*ports);
            json["left_out"] = left_out_of(status.port_stats);
        }
        json["levels"] = levels_of(status.port_stats, ports);
    }
    json["serving"] = serving;
    json["state"] = state_names.at(static_cast<std::size_t>(status.state));
    return status;
}

std::vector<Status> read_statuses(std::span<const Instance> servers) {
    std::optional<std::vector<ListeningSocket>> sockets;
    try {
        sockets = listening_sockets();
    } catch (const std::runtime_error& error) {
        log_warning("{}; listeners are not shown", error.what());
    }
    std::vector<Status> all;
    for (const auto& server : servers) all.push_back(read_status(server, sockets));
    return all;
}

int print_status(StatusFormat format) {
    const auto all = read_all();
    const auto text = format(all);
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (!written && errno != EPIPE)  // 'head' may close the pipe early
        fail("writing the status");
    if (!all.empty()) return 0;
    log_error("no echo-server runs in this network namespace");
    return 1;
}

}  // namespace echo_server
