// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/privileges.h"
#include "base/systemd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/pins.h"
#include "net/address.h"
#include "net/port_set.h"
#include "options.h"
#include "service/replacement.h"

namespace echo_server {

/// The socket of the running server (`replacement`), of the process before this one (`store`), or a new one: the first
/// of these that there is. Throws std::runtime_error if that of `replacement` is not bound where --listen says; if that
/// of the store is not, a new one is opened instead.
Fd obtain_listener(const Options& options, std::optional<Replacement>& replacement, DescriptorStore& store);

// What a server says at its start.

/// What there is to say once it serves.
struct Announcement {
    const Options& options;
    const User& user;
    const PortSet& ports;
    int listener;
    const std::optional<Replacement>& replacement;
    bool by_root;  ///< root has started it
    bool kept_cap_bpf;
};

/// Logs what is served, where, by whom, and how to reload and to stop it; in the journal, on one line, without the
/// commands, as they are systemctl's there.
void announce(const Announcement& facts);

/// Logs which of `prefixes`, those of --address, have no address here.
void warn_of_addresses(const std::vector<AddressPrefix>& prefixes);

/// Logs what `user`, whom the process has become, will not be able to do.
void warn_of_lost_rights(const Options& options, const User& user, const Dispatcher& dispatcher, const Pins& pins,
                         bool kept_cap_bpf);

/// Checks whether a start with `options` would succeed, and a reload: reads the ports file, looks for other listeners,
/// and for the addresses and the user. Changes nothing. Throws std::runtime_error about the first thing that is wrong.
/// The socket of the running server does not matter; only root can tell which socket that is.
void check_start(const Options& options);

/// Runs a server from its start to its end: until a signal, or until another process has taken over. To be called
/// with signals blocked. Throws std::runtime_error if the start fails, or if SIGINT or SIGTERM came meanwhile:
/// nothing is left then, and a server that was to be replaced goes on.
void serve(const Options& options);

}  // namespace echo_server
