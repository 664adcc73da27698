// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "net/address.h"
#include "net/port_set.h"
#include "net/socket_diag.h"

namespace echo_server {

// sk_lookup comes before the kernel's own search for a listener: a port that is opened here is taken from whoever
// listens on it, without an error anywhere. This finds out who that would be.

/// Those of `sockets` that would lose connections if `ports` were opened at `addresses` (all, if there are none). The
/// socket with the cookie `own` is not counted.
std::vector<ListeningSocket> shadowed(const std::vector<ListeningSocket>& sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own);

/// An error that names their ports, with the names of the processes where /proc shows them, and says how to go on.
std::string explain_refusal(const std::vector<ListeningSocket>& sockets);

/// The same as a warning: these ports are taken.
std::string explain_shadowing(const std::vector<ListeningSocket>& sockets);

}  // namespace echo_server
