// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "options.h"

namespace echo_server {

/// Runs a server from its start to its end: until a signal, or until another process has replaced it. Throws
/// std::runtime_error if the start fails: nothing is left then, and a server that was to be replaced goes on.
void serve(const Options& options);

/// Checks whether a start with `options` (beside a running server without --replace: its restart, or its reload) would
/// succeed: reads the ports file as the user would, looks for other listeners, and checks the addresses and the user.
/// Changes nothing. Throws std::runtime_error about the first problem. Only root can tell the running server's socket.
void check_start(const Options& options);

}  // namespace echo_server
