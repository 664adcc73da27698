// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "net/port_set.h"
#include "probe/scan.h"

namespace echo_server {

/// The figures of a port: a member of by_port in the output of 'echo-server status --json'.
struct ServerFigures {
    std::uint64_t attempts = 0;
    std::uint64_t received = 0;  ///< bytes
};

/// The server's side: the sum over all servers in that output.
struct ServerSide {
    PortSet open;
    PortSet taken;  ///< left out: another program listens
    PortSet hosts;  ///< left out: the host's own ports
    std::vector<ServerFigures> by_port = std::vector<ServerFigures>(65536);
};

/// Parses that output. Throws std::runtime_error if it is something else, or has no server.
ServerSide parse_status(const std::string& output);

/// What was counted between the two, with the ports of `after`. If the figures were reset meanwhile, or the server was
/// restarted, the figures of `after`.
ServerSide difference(const ServerSide& before, ServerSide after);

/// What both sides together show about `port`, in words.
std::string reading_of(std::uint16_t port, const PortResult& result, const ServerSide& server);

/// What a probe has found.
struct Report {
    const ProbeOptions& options;
    std::string address;
    std::size_t payload_size = 0;  ///< bytes
    double seconds = 0;
    bool is_complete = true;  ///< false if somebody ended it early
    PortSet ports;
    const Results& results;
    std::optional<ServerSide> server;

    /// The ports that echo; if the server's figures are known, only those that the server itself echoes.
    [[nodiscard]] PortSet echoed() const;
    /// Whether these are all probed ports or, with --expect, exactly the expected ones.
    [[nodiscard]] bool is_as_expected() const;
    /// For people: a line for each verdict, detail and reading.
    [[nodiscard]] std::string to_text() const;
    /// The same for programs.
    [[nodiscard]] std::string to_json() const;
};

}  // namespace echo_server
