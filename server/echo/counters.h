// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <atomic>
#include <cstdint>

#include "echo_dispatch.h"

namespace echo_server {

/// Adds to a counter that only the calling thread writes, while other threads and processes may read it.
inline void increase(__u64& counter, std::uint64_t amount) {
    const std::atomic_ref shared(counter);
    shared.store(shared.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

/// Adds 1 to a counter that several threads write.
inline void count(__u64& counter) { std::atomic_ref(counter).fetch_add(1, std::memory_order_relaxed); }

}  // namespace echo_server
