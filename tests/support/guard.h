// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

namespace echo_server {

/// Has process `pid` killed when this process ends, even by SIGKILL. (PR_SET_PDEATHSIG has no
/// effect on a child that becomes another user.)
void kill_at_our_end(pid_t pid);

}  // namespace echo_server
