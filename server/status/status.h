// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dispatch/instances.h"
#include "echo_dispatch.h"
#include "net/port_set.h"
#include "net/sockets.h"

namespace echo_server {

/// What 'echo-server status' shows of a server.
struct Status {
    /// Its element in the output of --json, without by_port, but with start_time (seconds since 1970) for Prometheus.
    /// A value that is not known is null.
    nlohmann::ordered_json json;
    Instance::State state = Instance::State::draining;
    bool ended = false;                       ///< the process is gone, but somebody keeps its BPF program
    std::vector<echo_port_stats> port_stats;  ///< by port; empty if not known
};

/// The ports whose figures meet a condition.
PortSet ports_where(std::span<const echo_port_stats> port_stats, bool (*condition)(const echo_port_stats& figures));

/// Reads the maps of `server`. `sockets`: all listening sockets of this network namespace, if known. Throws
/// std::runtime_error if a map can't be read.
Status read_status(const Instance& server, const std::optional<std::vector<ListeningSocket>>& sockets);

/// The same for several servers. Asks the kernel for the sockets, and logs a warning if that fails.
std::vector<Status> read_statuses(std::span<const Instance> servers);

using StatusFormat = std::string (*)(const std::vector<Status>&);

/// 'echo-server status': prints the servers of this network namespace. Returns the exit code: 1 if there is none.
/// Throws std::runtime_error if they can't be read.
int print_status(StatusFormat format);

/// For people: some lines for each server.
std::string to_text(const std::vector<Status>& servers);

/// For people: for each server, a table of the ports that were reached, the busiest first.
std::string to_port_table(const std::vector<Status>& servers);

/// {"instances": [{...}]}; a value that is not known is null.
std::string to_json(const std::vector<Status>& servers);

/// Prometheus' text exposition format, for node_exporter's textfile collector. Values that are not known are left out.
/// There are no figures by port: a scan would make 65,535 time series.
std::string to_prometheus(const std::vector<Status>& servers);

}  // namespace echo_server
