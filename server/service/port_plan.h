// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/privileges.h"
#include "net/port_set.h"
#include "options.h"

namespace echo_server {

/// The ports that a start or a reload is to open.
struct PortPlan {
    PortSet ports;
    std::vector<std::string> warnings;  ///< to be logged
};

/// "3 TCP ports open: 7,77,777", shortened where that is long.
std::string describe_open(const PortSet& ports);

/// How many ranges of ports a line shows before it counts the rest.
constexpr std::size_t ranges_in_a_line = 16;

/// Puts together the ports of the flags and of the ports file, and asks the kernel who else listens on those that are not
/// yet `open`; `listener_cookie` is our own socket's. It can take as long as the file system and /proc do. Throws
/// std::runtime_error if the ports may not be opened.
PortPlan plan_ports(const Options& options, const User& user, const PortSet& open, std::uint64_t listener_cookie);

/// The same at the start, when none is open: it also finds out whether `user` will be able to read the ports file again.
PortPlan plan_first_ports(const Options& options, const User& user, std::uint64_t listener_cookie);

}  // namespace echo_server
