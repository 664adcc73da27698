// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <atomic>
#include <cstdint>

#include "echo_dispatch.h"

namespace echo_server {

/// Adds to a counter (2^64 - 1 subtracts 1) that one thread writes while others, and other processes, may read it.
inline void add(__u64& counter, std::uint64_t amount, std::memory_order order = std::memory_order_relaxed) {
    const std::atomic_ref shared(counter);
    shared.store(shared.load(std::memory_order_relaxed) + amount, order);
}

inline std::uint64_t read(__u64& counter, std::memory_order order = std::memory_order_relaxed) {
    return std::atomic_ref(counter).load(order);
}

}  // namespace echo_server
