// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"

namespace echo_server {

// Messages to systemd (sd_notify(3)) and sockets from it (sd_listen_fds(3)). Without systemd nothing happens.

/// The start or a reload is done; `status` is one line that says which ports are open.
void notify_ready(const std::string& status);
void notify_reloading();

/// notify_ready() with the status unchanged. Needs no memory.
void notify_ready_again();
void notify_stopping(const std::string& status);

/// The listening socket that systemd has passed (socket activation), if any. Throws std::runtime_error if it has
/// passed more than one descriptor.
std::optional<Fd> passed_socket();

/// Whether systemd has passed a socket; leaves it where it is.
bool is_socket_passed();

}  // namespace echo_server
