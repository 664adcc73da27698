// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "status/status.h"

namespace echo_server {

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
