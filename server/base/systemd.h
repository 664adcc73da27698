// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"

namespace echo_server {

// What systemd is told (sd_notify(3)) and what it passes (sd_listen_fds(3)). Without systemd nothing happens.

/// The start, or a reload, is done; `status` says in a line what is served.
void notify_ready(const std::string& status);
void notify_reloading();

/// As notify_ready() with the status as it was. Needs no memory of its own.
void notify_ready_again();
void notify_stopping(const std::string& status);

/// The listening socket that the process was started with, by socket activation. Throws std::runtime_error if it was
/// passed more than one descriptor.
std::optional<Fd> passed_socket();

/// Whether the process was started with one, which stays as it is.
bool is_socket_passed();

}  // namespace echo_server
