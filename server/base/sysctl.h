// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <string>

namespace echo_server {

/// Reads the sysctl `name`, such as "net/ipv4/ip_local_port_range", in the network namespace of the calling thread;
/// without the newline. Returns nothing, with errno set, if it can't be read.
std::optional<std::string> read_sysctl(const std::string& name);

}  // namespace echo_server
