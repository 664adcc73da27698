// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>

namespace echo_server {

/// User and system time that process `pid` and all its descendants have used, ended ones too as far as they were
/// waited for. Exact for those that live, in clock ticks (10 ms) for those that ended. Throws std::runtime_error if
/// there is no such process.
std::chrono::nanoseconds cpu_time(pid_t pid);

/// Its resident memory, in bytes. Throws std::runtime_error if there is no such process.
std::size_t resident_memory(pid_t pid);

}  // namespace echo_server
