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

/// The command line of a server. Values that are not given have their defaults. The default of `threads` is the number
/// of CPUs that this process may use (taskset(1) and CPUAffinity= limit them).
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

/// Parses the command line of the server, of 'status' (a format), of 'reload' (a PID; none for the only
/// server) or of 'probe'. Returns an exit code if there is nothing more to do: 0 after --help and --version, 2 after an
/// error message about wrong usage.
std::variant<Options, StatusFormat, std::optional<pid_t>, ProbeOptions, int> parse_command_line(int argc, char** argv);

}  // namespace echo_server
