// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "base/fd.h"

namespace echo_server {

// Other processes of this PID namespace. A PID can be used again; PID and start time, in clock ticks since the boot
// (field 22 of /proc/PID/stat, proc(5)), name a process for good.

/// When this process was started; 0 if that can't be read.
std::uint64_t start_of_this_process();

/// Opens the process `pid` (pidfd_open(2)). If it was not started at `start`, it is another process, and the error is
/// ESRCH, as if there were none. A `start` of 0 is not known.
Fd open_process(pid_t pid, std::uint64_t start);

/// False where /proc shows the processes of another PID namespace, as after unshare(1) without --mount-proc.
bool proc_is_ours();

}  // namespace echo_server
