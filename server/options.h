// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "net/address_prefix.h"
#include "net/port_set.h"

namespace echo_server {

/// What the command line asks a server for.
struct Options {
    PortList ports;  ///< all of --ports
    std::optional<std::string> ports_file;
    std::vector<AddressPrefix> addresses;  ///< none: every address
    bool shadow_listeners = false;
    bool allow_ephemeral = false;
    std::optional<asio::ip::tcp::endpoint> listen;  ///< nothing: as it comes, or 127.0.0.1:7777
    bool replace = false;
    std::optional<std::string> user;
    std::optional<std::string> pin;
    std::size_t threads = 1;
    std::optional<std::size_t> max_connections;
    std::chrono::seconds idle_timeout{};  ///< 0: none
    std::chrono::seconds drain_timeout{};
    bool verbose = false;
};

/// 'echo-server status'.
struct StatusOptions {
    enum class Format { text, json, prometheus };
    Format format = Format::text;
};

/// The process is to end with this code; everything was said.
struct Exit {
    int code;
};

/// Parses the command line. Prints what --help and --version ask for (Exit 0), and one line to standard error for
/// wrong usage (Exit 2).
std::variant<Options, StatusOptions, Exit> parse_command_line(int argc, char** argv);

}  // namespace echo_server
