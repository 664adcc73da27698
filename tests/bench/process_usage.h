// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>

namespace echo_server {

/// User and system time of process `pid` and all its descendants. Ended descendants count if their parents waited for
/// them. Exact for processes that still run; in clock ticks (10 ms) for ended processes. Throws std::runtime_error if
/// there is no such process.
std::chrono::nanoseconds cpu_time(pid_t pid);

/// Its resident memory, in bytes. Throws std::runtime_error if there is no such process.
std::size_t resident_memory(pid_t pid);

}  // namespace echo_server
