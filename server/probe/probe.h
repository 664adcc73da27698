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
    PortList ports;           ///< empty: those that the server has open, by its status, or else all
    PortList expect;          ///< those that are to echo; empty: all
    std::size_t size = 4096;  ///< of the payload, in bytes, if it is the pattern
    std::string payload;      ///< as make_payload() takes it; "" is the pattern
    int timeout = 0;          ///< in seconds; 0: 2 to connect, 5 for the next byte
    int hold = 0;             ///< in seconds, after the echo, before all is sent again; 0: it is not
    unsigned retries = 2;
    std::size_t parallel = 256;
    double rate = 1e9;   ///< connects a second, at most
    std::string status;  ///< a file, or "-"; "" is none
    std::string status_command;
    bool json = false;
};

/// The size of the largest payload, in bytes.
constexpr std::size_t max_payload = std::size_t{16} << 20U;

/// What the probe sends on each connection. `kind` is what a client of a protocol sends first ("tls", "http", "ssh",
/// "smtp"), bytes ("hex:0d0a") or the contents of a file ("@FILE"); or "", `size` bytes of a pattern, in which each 256
/// bytes have every byte value once. `host` is the name or the address that is probed. Throws std::runtime_error if
/// `kind` is something else, or the file can't be read, is empty or has more than max_payload bytes.
std::string make_payload(const std::string& kind, std::size_t size, const std::string& host);

/// 'echo-server probe': prints what gets through each port. Returns the exit code: 0 if all ports echo, or those that
/// are expected and no other; else 1; 3, after a line to standard error, if it could not be measured.
int probe(const ProbeOptions& options);

}  // namespace echo_server
