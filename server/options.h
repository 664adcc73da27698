// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "net/address.h"
#include "net/port_set.h"
#include "probe/probe.h"
#include "status/status.h"

namespace echo_server {

/// Where a new socket is bound without --listen.
constexpr auto default_listen_address = "127.0.0.1:7777";

/// The command line of a server. Values that are not given have their defaults; for the threads that is the number of
/// CPUs that this process may use (taskset(1) and CPUAffinity= count).
struct Options {
    PortList ports;  ///< all of --ports
    std::optional<std::string> ports_file;
    std::vector<AddressPrefix> addresses;  ///< empty: every address
    bool shadow_listeners = false;
    bool allow_ephemeral = false;
    std::optional<asio::ip::tcp::endpoint> listen;  ///< unset: a replaced server's, or default_listen_address
    bool replace = false;
    std::optional<std::string> user;
    std::optional<std::string> pin;
    std::size_t threads = 1;
    std::optional<std::size_t> max_connections;
    std::chrono::seconds idle_timeout{0};  ///< 0: none
    std::chrono::seconds drain_timeout{5};
    bool verbose = false;
    bool check = false;
};

/// Parses the command line; 'echo-server status' has nothing but a format, 'echo-server reload' the PID of a server, or
/// none for the only one, and 'echo-server probe' options of its own. Returns the exit code if there is nothing more to
/// do: 0 after --help and --version, 2 for wrong usage, after a line to standard error.
std::variant<Options, StatusFormat, std::optional<pid_t>, ProbeOptions, int> parse_command_line(int argc, char** argv);

}  // namespace echo_server
