// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "options.h"

namespace echo_server {

/// Checks whether a start with `options` would succeed, and a reload: reads the ports file, looks for other listeners,
/// and for the addresses and the user. Changes nothing. Logs what is wrong, and returns whether nothing is. The socket
/// of the running server is no obstacle; only root can tell which socket that is. As ExecReload= of systemd.service(5),
/// it also lets 'systemctl status' say what is wrong.
bool check_start(const Options& options);

}  // namespace echo_server
