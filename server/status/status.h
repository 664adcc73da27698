// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dispatch/running_servers.h"
#include "echo_dispatch.h"
#include "net/address.h"
#include "net/port_set.h"
#include "net/socket_diag.h"

namespace echo_server {

/// What 'echo-server status' shows of a server. A field that can't be read is empty: what another version does not
/// have, user and PID of a process in another PID namespace, listener and ports of a draining server.
struct ServerStatus {
    std::uint32_t program = 0;  ///< id of its BPF program
    RunningServer::State state = RunningServer::State::draining;
    std::optional<echo_instance> identity;
    bool ended = false;                ///< the process is gone, and somebody keeps its BPF program
    std::optional<std::uint32_t> pid;  ///< nothing in another PID namespace, or if the process has ended
    std::optional<std::string> user;
    std::optional<std::chrono::nanoseconds> uptime;
    std::optional<ListeningSocket> listener;
    std::optional<PortSet> ports;
    std::optional<std::vector<AddressPrefix>> addresses;  ///< empty: every address
    std::optional<echo_counters> counters;
    std::optional<std::vector<echo_reached>> reached;  ///< by port
    std::optional<std::array<std::uint64_t, ECHO_DROP_REASONS>> drops;
};

/// Reads the maps of `server`. `sockets` are all listening sockets of this network namespace, if they are known.
ServerStatus read_status(const RunningServer& server, const std::optional<std::vector<ListeningSocket>>& sockets);

/// The same for several servers; asks the kernel for the sockets, and logs a warning if it can't tell.
std::vector<ServerStatus> read_statuses(std::span<const RunningServer> servers);

/// A function of status/format.h.
using StatusFormat = std::string (*)(const std::vector<ServerStatus>&);

/// 'echo-server status': prints the servers of this network namespace. Returns the exit code: 1 if there is none.
/// Throws std::runtime_error if the kernel can't tell.
int print_status(StatusFormat format);

}  // namespace echo_server
