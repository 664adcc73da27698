// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <atomic>
#include <cstdint>

#include "echo_dispatch.h"

/// Adds to a counter that one thread writes while others, and other processes, may read it.
inline void add(__u64& counter, std::uint64_t amount) {
    const std::atomic_ref shared(counter);
    shared.store(shared.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

inline void subtract(__u64& counter, std::uint64_t amount) { add(counter, -amount); }
