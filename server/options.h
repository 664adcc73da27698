// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <variant>

#include "port_set.h"

/// What the command line asks for.
struct Options {
    PortList ports;  ///< all of --ports
    std::optional<std::string> ports_file;
    asio::ip::tcp::endpoint listen;
    std::chrono::seconds drain_timeout{};
    bool verbose = false;
};

/// The process is to end with this code; everything was said.
struct Exit {
    int code;
};

/// Parses the command line. Prints what --help and --version ask for (Exit 0), and one line to standard error for
/// wrong usage (Exit 2).
std::variant<Options, Exit> parse_command_line(int argc, char** argv);
