// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <vector>

#include "base/privileges.h"
#include "dispatch/dispatcher.h"
#include "dispatch/pins.h"
#include "net/address.h"
#include "net/port_set.h"
#include "options.h"
#include "service/takeover.h"

namespace echo_server {

// What a server says at its start.

/// What there is to say once it serves.
struct Announcement {
    const Options& options;
    const User& user;
    const PortSet& ports;
    int listener;
    const std::optional<Takeover>& takeover;
    bool by_root;  ///< root has started it
    bool kept_cap_bpf;
};

/// Logs what is served, where, by whom, and how to reload and to stop it; in the journal, on one line, without the
/// commands, as they are systemctl's there.
void announce(const Announcement& facts);

/// Logs if clients of some interfaces will get no answer from `listener`.
void warn_of_interfaces(int listener);

/// Logs which of `prefixes`, those of --address, have no address here.
void warn_of_addresses(const std::vector<AddressPrefix>& prefixes);

/// Logs what `user`, whom the process has become, will not be able to do.
void warn_of_lost_rights(const Options& options, const User& user, const Dispatcher& dispatcher, const Pins& pins,
                         bool kept_cap_bpf);

}  // namespace echo_server
