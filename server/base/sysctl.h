// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <string>

namespace echo_server {

/// What is set as `name` in the network namespace of the calling thread, such as "net/ipv4/ip_local_port_range", without
/// the newline. Nothing, with errno set, where it can't be read.
std::optional<std::string> read_sysctl(const std::string& name);

}  // namespace echo_server
