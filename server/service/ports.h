// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "net/address.h"
#include "net/port_set.h"
#include "net/sockets.h"
#include "options.h"

namespace echo_server {

// sk_lookup runs before the kernel looks for a listener: a port that is opened here is taken from the socket that
// listens there, without an error anywhere.

/// Those of `sockets` that would lose connections if `ports` were opened on `addresses` (on all, if there are none).
/// The socket with the cookie `own` is left out.
std::vector<ListeningSocket> shadowed(std::vector<ListeningSocket> sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own);

/// Which ports `sockets` have, with the names of the processes where /proc shows them, and what to do; or, if they are
/// `taken`, that --shadow-listeners takes them.
std::string explain_conflicts(const std::vector<ListeningSocket>& sockets, bool taken);

// connect() and bind(0) take a local port from net.ipv4.ip_local_port_range, but never a port on which a connection
// was accepted, until its last socket is gone, even in LAST-ACK or TIME_WAIT. So a server that answers on all of
// these ports lets its clients stop the host's own connections (net/ipv4/inet_hashtables.c: __inet_hash_connect).

/// The ports from which the kernel chooses local ports.
struct EphemeralPorts {
    PortRange range;
    PortSet usable = {};          ///< the range without reserved ports
    std::string unreadable = {};  ///< why these are the kernel's defaults, not the settings; else ""
};

/// Parses net.ipv4.ip_local_port_range ("32768\t60999"; the kernel's default if it is something else) and
/// net.ipv4.ip_local_reserved_ports ("8080,9000-9010", or "").
EphemeralPorts parse_ephemeral_ports(std::string_view range, std::string_view reserved);

/// Throws std::runtime_error, which says what to leave out, if opening `ports` leaves too few of the `local` ports
/// closed.
void check_ephemeral_ports(const PortSet& ports, const EphemeralPorts& local);

/// Reads a port list from the file at `path`: a PortList on each line; '#' starts a comment. Takes only regular files.
/// Throws std::runtime_error, with file and line, if the file can't be read whole, lists nothing, or is wrong in any
/// line.
PortList read_ports_file(const std::string& path);

/// read_ports_file() for `text`, the contents of the file. `path` is for messages alone.
PortList parse_ports_file(std::string_view text, const std::string& path);

/// The ports that a start or a reload will open: those of the flags and of the ports file. Asks the kernel for other
/// listeners on ports that are not yet `open`, and warns in the log if ports are taken from them; `listener_cookie`
/// names our own socket. Can be as slow as the file system and /proc. Throws std::runtime_error if the ports may not be
/// opened.
PortSet plan_ports(const Options& options, const PortSet& open, std::uint64_t listener_cookie);

/// "3 TCP ports open: 7,77,777", shortened where that is long, and why the last reload failed, if it did.
std::string describe_open(const PortSet& ports, const std::string& failure = {});

}  // namespace echo_server
