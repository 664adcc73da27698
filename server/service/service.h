// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "options.h"

namespace echo_server {

/// Runs a server from its start to its end: until a signal, or until another process has taken over. To be called
/// with signals blocked. Throws std::runtime_error if the start fails, or if SIGINT or SIGTERM came meanwhile:
/// nothing is left then, and a server that was to be replaced goes on.
void serve(const Options& options);

}  // namespace echo_server
