// SPDX-License-Identifier: BSD-2-Clause
#include "status/status.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/text.h"
#include "dispatch/dispatcher.h"

namespace echo_server {

namespace {

std::vector<AddressPrefix> read_addresses(const MapHandle& map) {
    constexpr __u32 max_prefixes = 65536;
    std::vector<AddressPrefix> prefixes;
    echo_prefix key{};
    const void* previous = nullptr;
    // If a key is removed meanwhile, the search starts again: limit the number of steps.
    for (__u32 i = 0; i < std::min(map.info.max_entries, max_prefixes); ++i) {
        if (bpf_map_get_next_key(map.fd.get(), previous, &key) != 0) {
            if (errno != ENOENT) map.fail_to_read();
            break;
        }
        previous = &key;
        prefixes.push_back(to_prefix(key));
    }
    return prefixes;
}

// The first `count` values of an array; zeroes where it has less.
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
    // The first thread last: it alone counts the beginnings of connections, so each end that was read before has its
    // beginning in the sum.
    for (auto thread = std::min<__u32>(map.info.max_entries, ECHO_MAX_THREADS); thread-- > 0;) {
        map.read(thread, &of_thread, sizeof(of_thread));
        for (auto member : {&echo_counters::ended, &echo_counters::accepted, &echo_counters::refused,
                            &echo_counters::timed_out, &echo_counters::received, &echo_counters::sent})
            sum.*member += of_thread.*member;
    }
    return sum;
}

// Whether the process has that socket as its listener. In a drain it has closed it; systemd may keep it open.
bool has_listener(const ServerStatus& server) {
    if (server.ended) return false;
    if (!server.pid || !proc_is_ours()) return true;  // nobody knows
    std::error_code error;
    const auto path = fmt::format("/proc/{}/fd/{}", *server.pid, server.identity->listener);
    const auto target = std::filesystem::read_symlink(path, error);
    if (error && error != std::errc::no_such_file_or_directory) return true;  // nobody may look there
    return target == fmt::format("socket:[{}]", server.listener->inode);
}

// Whether somebody serves, and nobody seems to have lost what a server needs. If not, a replacement may be under way:
// the servers are found first, and their processes looked at later.
bool is_settled(const std::vector<ServerStatus>& servers) {
    bool served = false;
    for (const auto& server : servers) {
        const bool serves = server.state == Instance::State::serving;
        if (!serves && server.state != Instance::State::draining) return false;
        served = served || serves;
    }
    return served;
}

std::vector<std::pair<std::uint32_t, Instance::State>> states_of(const std::vector<Instance>& servers) {
    std::vector<std::pair<std::uint32_t, Instance::State>> states;
    for (const auto& server : servers) states.emplace_back(server.program, server.state);
    return states;
}

std::vector<ServerStatus> read_all() {
    auto servers = find_instances();
    for (int looks_left = 10;; --looks_left) {
        auto all = read_statuses(servers);
        if (is_settled(all) || looks_left == 0) return all;
        auto now = find_instances();
        if (states_of(now) == states_of(servers)) return all;
        servers = std::move(now);
    }
}

}  // namespace

ServerStatus read_status(const Instance& server, const std::optional<std::vector<ListeningSocket>>& sockets) {
    ServerStatus status;
    status.program = server.program;
    status.state = server.state;
    status.identity = server.identity;
    if (const auto& identity = server.identity) {
        status.ended = has_ended(*identity);
        if (in_this_pid_namespace(*identity) && !status.ended) status.pid = identity->pid;
        if (status.pid && proc_is_ours())
            if (auto user = user_of(static_cast<pid_t>(*status.pid))) status.user = std::move(user->name);
        // The process wrote it: it may be nonsense.
        if (const auto now = time_of(CLOCK_BOOTTIME);
            !status.ended && identity->started <= static_cast<std::uint64_t>(now.count()))
            status.uptime = now - std::chrono::nanoseconds(identity->started);
    }
    const bool known = server.is_of_this_version();
    if (known) {
        status.addresses = read_addresses(*server.map("echo_addresses"));
        status.counters = read_counters(*server.map("echo_counters"));
        status.port_stats = read_values<echo_port_stats>(*server.map("echo_port_stats"), 65536);
        const auto drops = read_values<std::uint64_t>(*server.map("echo_drops"), ECHO_DROP_REASONS);
        std::ranges::copy(drops, status.drops.emplace().begin());
    }
    if (server.state == Instance::State::draining) return status;

    if (sockets) {
        const auto cookie = server.listener_cookie();
        const auto listener = std::find_if(sockets->begin(), sockets->end(),
                                           [&](const ListeningSocket& socket) { return socket.cookie == cookie; });
        if (listener != sockets->end())
            status.listener = *listener;
        else
            status.state = Instance::State::socketless;  // the map keeps a socket that was destroyed
    }
    if (status.state == Instance::State::serving && status.listener && !has_listener(status))
        status.state = Instance::State::waiting;
    if (status.state != Instance::State::serving && status.state != Instance::State::waiting) return status;
    if (known) status.ports = read_ports(server.map("echo_ports")->fd.get());
    return status;
}

std::vector<ServerStatus> read_statuses(std::span<const Instance> servers) {
    std::optional<std::vector<ListeningSocket>> sockets;
    try {
        sockets = listening_sockets();
    } catch (const std::runtime_error& error) {
        log_warning("{}; listeners are not shown", error.what());
    }
    std::vector<ServerStatus> all;
    for (const auto& server : servers) all.push_back(read_status(server, sockets));
    return all;
}

int print_status(StatusFormat format) {
    const auto all = read_all();
    const auto text = format(all);
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (!written && errno != EPIPE)  // a reader such as 'head' has enough
        fail("status: writing it");
    if (!all.empty()) return 0;
    log_error("no echo-server runs in this network namespace");
    return 1;
}

std::uint64_t attempts(const std::vector<echo_port_stats>& port_stats) {
    return std::accumulate(port_stats.begin(), port_stats.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const echo_port_stats& figures) { return sum + figures.lookups; });
}

std::uint64_t open_connections(const echo_counters& counters) {
    return counters.accepted - std::min(counters.accepted, counters.ended);
}

bool is_reached(const echo_port_stats& figures) { return figures.lookups + figures.accepted + figures.echoed != 0; }

Levels levels_of(const std::vector<echo_port_stats>& port_stats, const std::optional<PortSet>& ports) {
    Levels levels;
    for (std::size_t i = 0; i < port_stats.size(); ++i) {
        const auto& figures = port_stats[i];
        if (!is_reached(figures)) continue;
        auto& level = figures.echoed != 0 ? levels.echoed : figures.accepted != 0 ? levels.connected : levels.attempted;
        level.insert(static_cast<std::uint16_t>(i));
    }
    if (ports) levels.not_reached = *ports - levels.echoed - levels.connected - levels.attempted;
    return levels;
}

std::vector<std::uint16_t> busiest(const std::vector<echo_port_stats>& port_stats) {
    std::vector<std::uint16_t> ports;
    for (std::size_t port = 0; port < port_stats.size(); ++port)
        if (is_reached(port_stats[port])) ports.push_back(static_cast<std::uint16_t>(port));
    std::ranges::stable_sort(ports, std::greater(), [&](std::uint16_t port) {
        const auto& [lookups, accepted, echoed] = port_stats[port];
        return std::tuple(lookups, accepted, echoed);
    });
    return ports;
}

std::string version_of(const ServerStatus& server) {
    return server.identity ? printable(server.identity->version) : "?";
}

}  // namespace echo_server
