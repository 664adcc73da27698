// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/netlink.h>

#include <string>
#include <vector>

#include "net/address.h"

namespace echo_server {

// What the kernel's routing tables say about who gets no answer.

/// Those of `prefixes` at which this network namespace takes no connection, because none of its addresses, nor another
/// route of type local (ip-route(8)), overlaps with them. None if the kernel can't tell.
std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes);

// A VRF is a routing table with its own interfaces (Documentation/networking/vrf.rst in the kernel). A socket outside
// of it serves its clients only if net.ipv4.tcp_l3mdev_accept is 1. sk_lookup skips that check, and with 0 the
// answers leave by the main routing table.

/// The name of the interface in a message RTM_NEWLINK, if it is a VRF; otherwise "".
std::string vrf_in(const nlmsghdr* message);

/// If clients in a VRF of this network namespace would get no answer: why, and what to do. Otherwise, or if the
/// kernel can't tell, "".
std::string explain_vrf();

}  // namespace echo_server
