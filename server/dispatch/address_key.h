// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "echo_dispatch.h"
#include "net/address.h"

namespace echo_server {

/// The key of a prefix in the map echo_addresses.
echo_prefix to_key(const AddressPrefix& prefix);

/// The prefix of a key, which may be nonsense: somebody else can have written it.
AddressPrefix to_prefix(const echo_prefix& key);

}  // namespace echo_server
