// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dispatch/instances.h"
#include "echo_dispatch.h"
#include "net/address.h"
#include "net/port_set.h"
#include "net/sockets.h"

namespace echo_server {

/// What 'echo-server status' shows of a server. A field that can't be read is empty: what another version does not
/// have, user and PID of a process in another PID namespace, listener and ports of a draining server.
struct ServerStatus {
    std::uint32_t program = 0;  ///< id of its BPF program
    Instance::State state = Instance::State::draining;
    std::optional<echo_instance> identity;
    bool ended = false;                ///< the process is gone, and somebody keeps its BPF program
    std::optional<std::uint32_t> pid;  ///< nothing in another PID namespace, or if the process has ended
    std::optional<std::string> user;
    std::optional<std::chrono::nanoseconds> uptime;
    std::optional<ListeningSocket> listener;
    std::optional<PortSet> ports;
    std::optional<std::vector<AddressPrefix>> addresses;  ///< empty: every address
    std::optional<echo_counters> counters;
    std::optional<std::vector<echo_port_stats>> port_stats;  ///< by port
    std::optional<std::array<std::uint64_t, ECHO_DROP_REASONS>> drops;
};

/// Reads the maps of `server`. `sockets` are all listening sockets of this network namespace, if they are known.
ServerStatus read_status(const Instance& server, const std::optional<std::vector<ListeningSocket>>& sockets);

/// The same for several servers; asks the kernel for the sockets, and logs a warning if it can't tell.
std::vector<ServerStatus> read_statuses(std::span<const Instance> servers);

/// to_text(), say.
using StatusFormat = std::string (*)(const std::vector<ServerStatus>&);

/// 'echo-server status': prints the servers of this network namespace. Returns the exit code: 1 if there is none.
/// Throws std::runtime_error if the kernel can't tell.
int print_status(StatusFormat format);

// Figures that more than one format shows.

/// All lookups that got the socket.
std::uint64_t attempts(const std::vector<echo_port_stats>& port_stats);

/// A process may have written nonsense there: the result is 0 then, and never negative.
std::uint64_t open_connections(const echo_counters& counters);

/// Whether any figure is not 0.
bool is_reached(const echo_port_stats& figures);

/// How far clients got. Each port has the highest level that a client reached there, and so is in one set.
struct Levels {
    PortSet echoed;                      ///< bytes were sent back
    PortSet connected;                   ///< connections were accepted, and that is all
    PortSet attempted;                   ///< lookups got the socket, and that is all
    std::optional<PortSet> not_reached;  ///< open, and nothing came; empty if the open ports are not known
};
/// `ports` are the open ports, if they are known. The result may have others: they were open before.
Levels levels_of(const std::vector<echo_port_stats>& port_stats, const std::optional<PortSet>& ports);

/// The ports that were reached, the port with the most attempts first.
std::vector<std::uint16_t> busiest(const std::vector<echo_port_stats>& port_stats);

/// The version, printable; "?" if it is not known.
std::string version_of(const ServerStatus& server);

/// For people: some lines for each server.
std::string to_text(const std::vector<ServerStatus>& servers);

/// For people: a table for each server of the ports that were reached, the busiest first.
std::string to_port_table(const std::vector<ServerStatus>& servers);

/// {"instances": [{...}]}; a value that is not known is null.
std::string to_json(const std::vector<ServerStatus>& servers);

/// Prometheus' text exposition format, for node_exporter's textfile collector. Values that are not known are left
/// out. There are no figures by port: a scan would make 65,535 time series.
std::string to_prometheus(const std::vector<ServerStatus>& servers);

}  // namespace echo_server
