// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "status/status.h"

namespace echo_server {

/// For a reader; some lines for each.
std::string to_text(const std::vector<ServerStatus>& servers);

/// {"instances": [{...}]}; what is not known is null.
std::string to_json(const std::vector<ServerStatus>& servers);

/// Prometheus' text exposition format, as node_exporter's textfile collector takes it; each server is told apart by
/// the label pid. What is not known is left out. Of the counts by port there are only the highest, so that a scan makes
/// no 65,535 time series.
std::string to_prometheus(const std::vector<ServerStatus>& servers);

}  // namespace echo_server
