// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/privileges.h"
#include "net/port_set.h"
#include "options.h"

namespace echo_server {

/// The ports that a start or a reload will open.
struct PortPlan {
    PortSet ports;
    std::vector<std::string> warnings;  ///< for the log
};

/// "3 TCP ports open: 7,77,777", shortened where that is long.
std::string describe_open(const PortSet& ports);

/// The same for systemd, with the reason why the last reload failed, if it did.
std::string describe_status(const PortSet& ports, const std::string& failure);

/// How many ranges of ports a line shows before it only counts the rest.
constexpr std::size_t ranges_in_a_line = 16;

/// A warning if `user` can't read the ports file of --ports-file: SIGHUP would fail. "" if all is well.
std::string explain_unreadable(const Options& options, const User& user);

/// Merges the ports of the flags and of the ports file, and asks the kernel for other listeners on ports that are not
/// yet `open`; `listener_cookie` names our own socket. Can be as slow as the file system and /proc. Throws
/// std::runtime_error if the ports may not be opened.
PortPlan plan_ports(const Options& options, const User& user, const PortSet& open, std::uint64_t listener_cookie);

/// The same at the start, when no port is open; with the warning of explain_unreadable().
PortPlan plan_first_ports(const Options& options, const User& user, std::uint64_t listener_cookie);

}  // namespace echo_server
