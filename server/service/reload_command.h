// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "base/os.h"
#include "base/privileges.h"

namespace echo_server {

// 'echo-server reload', and the UNIX socket by which it reaches a server. Each connection asks for a reload of its own,
// so that reload reads the ports file after the user has edited it. The server never reads from a connection, and never
// waits for one.

/// The server's listening socket. Throws std::system_error.
Fd open_reload_socket();

/// Takes the next connection to `listener`. Only root and `user`, who runs the server, may reload; others get an error.
/// Then, or if there is no connection, returns nothing, with errno set or 0. Needs no memory.
Fd accept_reload(int listener, uid_t user);

/// Tells `command` whether its reload succeeded, and `text`, one line. Needs no memory.
void answer_reload(const Fd& command, bool success, std::string_view text) noexcept;

/// The command: makes the echo-server of this network namespace reload, waits until it has, and logs its answer. `pid`
/// chooses one of several servers. Throws std::runtime_error, with the server's reason, if the reload has failed, or if
/// there is no answer in ten seconds.
void reload_server(std::optional<pid_t> pid);

}  // namespace echo_server
