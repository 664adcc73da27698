// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <optional>
#include <string_view>

#include "base/os.h"
#include "base/privileges.h"

namespace echo_server {

// 'echo-server reload', and the UNIX socket by which it reaches a server. The connection itself asks for the reload, so
// the reload that answers begins after the edit of the ports file. The server never reads from a connection, and never
// waits for one.

/// The server's listening socket. Throws std::system_error.
Fd open_reload_socket();

/// Takes the next connection to `listener`. Returns nothing, with errno set or 0, if there is none, or if its user may
/// not reload: only root and `user`, who runs the server, may. All others are told. Needs no memory.
Fd accept_reload(int listener, uid_t user);

/// Tells `command` whether its reload succeeded, and `text`, one line. Needs no memory.
void answer_reload(const Fd& command, bool success, std::string_view text) noexcept;

/// The command: makes the echo-server of this network namespace reload, waits until it has, and logs its answer. `pid`
/// chooses one of several servers. Throws std::runtime_error, with the server's reason, if the reload has failed, or if
/// there is no answer in ten seconds.
void reload_server(std::optional<pid_t> pid);

}  // namespace echo_server
