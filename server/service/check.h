// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "options.h"

namespace echo_server {

/// Checks whether a start with `options` would succeed, and a reload: reads the ports file, looks for other listeners,
/// and for the addresses and the user. Changes nothing. Throws std::runtime_error about the first thing that is wrong.
/// The socket of the running server does not matter; only root can tell which socket that is.
void check_start(const Options& options);

}  // namespace echo_server
