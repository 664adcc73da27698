// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <string>

#include "net/port_set.h"

namespace echo_server {

/// The command line of 'echo-server probe'.
struct ProbeOptions {
    std::string host;
    bool only_v4 = false;
    bool only_v6 = false;
    PortList ports;           ///< empty: the open ports in the server's status, or all without a status
    PortList expect;          ///< the ports that must echo; empty: all
    std::size_t size = 4096;  ///< of the pattern, in bytes
    std::string payload;      ///< for make_payload(); "": the pattern
    int timeout = 0;          ///< in seconds; 0: 2 to connect, 5 for the next byte
    int hold = 0;             ///< in seconds, between the echo and a second one; 0: no second one
    unsigned retries = 2;
    std::size_t parallel = 256;
    double rate = 1e9;   ///< connects a second, at most
    std::string status;  ///< a file, or "-"; "": none
    std::string status_command;
    bool json = false;
};

/// The size of the largest payload, in bytes.
constexpr std::size_t max_payload = std::size_t{16} << 20U;

/// What the probe sends on each connection. `kind`: the first bytes of a protocol's client ("tls", "http", "ssh",
/// "smtp"), given bytes ("hex:0d0a"), the contents of a file ("@FILE"), or "" for `size` bytes of a pattern, in which
/// each 256 bytes have every byte value once. `host`: the name or the address that is probed. Throws std::runtime_error
/// if `kind` is something else, or if the file can't be read, is empty or has more than max_payload bytes.
std::string make_payload(const std::string& kind, std::size_t size, const std::string& host);

/// 'echo-server probe': prints what gets through each port. Returns the exit code: 0 if all ports echo (with --expect:
/// exactly those), 1 if not, 3 after an error message, or if the probe was ended early.
int probe(const ProbeOptions& options);

}  // namespace echo_server
