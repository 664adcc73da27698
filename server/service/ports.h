// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "dispatch/dispatcher.h"
#include "net/address.h"
#include "net/port_set.h"
#include "net/sockets.h"
#include "options.h"

namespace echo_server {

// sk_lookup runs before the kernel looks for a listener: a port that is opened here is taken from the socket that
// listens there, without an error anywhere. So a port that the list names must be free, and a range takes free ports.

// connect() and bind(0) take a local port from net.ipv4.ip_local_port_range, but not a port that has an accepted
// connection, even in LAST-ACK or TIME_WAIT (net/ipv4/inet_hashtables.c: __inet_hash_connect). So if a server answers
// on all of these ports, its clients can block the host's own connections. It also takes the clients of programs that
// listen on a port of the kernel's choice.

/// The ports from which the kernel chooses local ports.
struct EphemeralPorts {
    PortRange range;
    PortSet usable = {};  ///< the range without reserved ports
};

/// Parses net.ipv4.ip_local_port_range ("32768\t60999"; the kernel's default if it is something else) and
/// net.ipv4.ip_local_reserved_ports ("8080,9000-9010", or "").
EphemeralPorts parse_ephemeral_ports(std::string_view range, std::string_view reserved);

/// What a port list opens on this host, and what its ranges leave out.
struct PortPlan {
    PortSet named = {};                        ///< single ports of the list: open
    PortSet ranged = {};                       ///< only in ranges of the list: open, except `taken`
    PortSet taken = {};                        ///< of `ranged`, those on which other programs listen
    PortSet hosts = {};                        ///< in ranges, but not in `ranged`: left to the host's own connections
    std::vector<ListeningSocket> takers = {};  ///< who listens on `taken`

    [[nodiscard]] PortSet wanted() const { return named | ranged; }
    [[nodiscard]] PortSet open() const { return wanted() - taken; }
    /// "; left out: 22 (another program listens), 32768-60999 (the host's own ports)", or ""; if `with_names`, with the
    /// names of programs that /proc shows.
    [[nodiscard]] std::string left_out(bool with_names = false) const;
    /// "3 TCP ports open: 7,77,777", shortened where that is long, and what is left out.
    [[nodiscard]] std::string describe(bool with_names = false) const;
};

/// Those of `sockets` that would lose connections if `ports` were opened on `addresses` (on all, if there are none).
std::vector<ListeningSocket> shadowed(std::vector<ListeningSocket> sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses);

/// Which ports `sockets` have, with the names of the processes where /proc shows them, and what to do; or, if they are
/// `taken`, that --shadow-listeners takes them.
std::string explain_conflicts(const std::vector<ListeningSocket>& sockets, bool taken);

/// What `list` opens on a host with the local ports `local`, where others listen on `sockets`. Of `options`, uses only
/// the flags about ports. At a reload, a named port that is `open` already may have a listener by now, and a range
/// leaves out ports that were `taken`, even if nobody listens there now. Warns in the log if ports are taken from
/// others. Throws std::runtime_error, with a remedy, if a named port is not free, if too few of the local ports stay
/// closed, or if no port is left to open.
PortPlan make_plan(const PortList& list, const Options& options, const EphemeralPorts& local,
                   const std::vector<ListeningSocket>& sockets, const PortSet& open = {}, const PortSet& taken = {});

/// make_plan() for the list of the flags and of the ports file, on this host. `listener` names our own socket by its
/// cookie. Can be as slow as the file system and /proc.
PortPlan plan_ports(const Options& options, std::uint64_t listener, const PortSet& open = {},
                    const PortSet& taken = {});

/// The port list in the file at `path`: a PortList on each line; '#' starts a comment. Takes only a regular file.
/// Throws std::runtime_error, with file and line, if the file can't be read whole, lists nothing, or is wrong anywhere.
PortList read_ports_file(const std::string& path);

/// read_ports_file() for `text`, the contents of the file. `path` is only for messages.
PortList parse_ports_file(std::string_view text, const std::string& path);

/// The open ports of a running server. A range gives a port to a program that begins to listen there, and takes it back
/// when the program has ended. For one thread. Functions that fail throw std::runtime_error.
class OpenPorts {
 public:
    /// Opens nothing. `listener` names our own socket by its cookie.
    OpenPorts(Options options, std::shared_ptr<Dispatcher> dispatcher, std::uint64_t listener);

    /// plan_ports() with the file and the listeners as they are now. Changes nothing.
    [[nodiscard]] PortPlan plan() const { return plan_ports(options_, listener_, dispatcher_->ports(), plan_.taken); }
    /// Makes the open ports those of `plan`, and returns what changed.
    Dispatcher::Change set(PortPlan plan);

    /// Looks for other listeners. Closes the ports of ranges on which they listen, opens them again when nobody has
    /// listened there for ten seconds, and warns once of each port that the list names. Ports that others have opened
    /// or closed in the map stay as they are. Returns a line about what has changed, or "".
    std::string look();

    /// PortPlan::describe() for the ports that are open now; ignores what others have changed in the map.
    [[nodiscard]] std::string describe() const { return plan_.describe(); }

 private:
    Options options_;
    std::shared_ptr<Dispatcher> dispatcher_;
    std::uint64_t listener_;
    PortPlan plan_;
    // By port of plan_.taken: when a look first found that nobody listens there any more. (If looks are late, a port
    // is closed for longer.)
    std::map<std::uint16_t, std::chrono::steady_clock::time_point> free_since_;
    PortSet left_alone_;  // others listen there, and look() does nothing: named, or closed by others
};

}  // namespace echo_server
