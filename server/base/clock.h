// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <chrono>
#include <ctime>

namespace echo_server {

/// The time of `clock`, such as CLOCK_BOOTTIME, which counts from the boot (clock_gettime(2)).
inline std::chrono::nanoseconds time_of(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace echo_server
