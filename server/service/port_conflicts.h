// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "net/address.h"
#include "net/port_set.h"
#include "net/socket_diag.h"

namespace echo_server {

// sk_lookup runs before the kernel looks for a listener: a port that is opened here is taken from the socket that
// listens there, without an error anywhere. These functions find such sockets.

/// Those of `sockets` that would lose connections if `ports` were opened on `addresses` (on all, if there are none).
/// The socket with the cookie `own` is left out.
std::vector<ListeningSocket> shadowed(const std::vector<ListeningSocket>& sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own);

/// The text of an error: their ports, with the names of the processes where /proc shows them, and what to do.
std::string explain_refusal(const std::vector<ListeningSocket>& sockets);

/// The same as a warning that these ports are taken.
std::string explain_shadowing(const std::vector<ListeningSocket>& sockets);

}  // namespace echo_server
