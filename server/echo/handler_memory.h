// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/bind_allocator.hpp>
#include <cassert>
#include <cstddef>
#include <new>
#include <utility>

namespace echo_server {

/// Preallocated storage for one pending Asio handler, so that a loop which waits for one thing after the other can wait
/// again when the heap is exhausted. Must outlive the io_context in which the handler waits.
class HandlerMemory {
 public:
    HandlerMemory() = default;
    HandlerMemory(const HandlerMemory&) = delete;
    HandlerMemory& operator=(const HandlerMemory&) = delete;
    ~HandlerMemory() { assert(!in_use_); }  // or the io_context would destroy a handler in memory that is gone

    void* allocate(std::size_t size) {
        if (in_use_ || size > storage_.size()) throw std::bad_alloc();
        in_use_ = true;
        return storage_.data();
    }
    void deallocate() noexcept { in_use_ = false; }

 private:
    alignas(std::max_align_t) std::array<std::byte, 512> storage_;
    bool in_use_ = false;
};

/// The allocator by which Asio uses that storage (Asio, "Custom Memory Allocation").
template <typename T>
class HandlerAllocator {
 public:
    using value_type = T;

    explicit HandlerAllocator(HandlerMemory& memory) noexcept : memory_(&memory) {}
    template <typename U>
    explicit HandlerAllocator(const HandlerAllocator<U>& other) noexcept : memory_(other.memory_) {}

    T* allocate(std::size_t count) { return static_cast<T*>(memory_->allocate(count * sizeof(T))); }
    void deallocate(T* /*pointer*/, std::size_t /*count*/) noexcept { memory_->deallocate(); }

    template <typename U>
    bool operator==(const HandlerAllocator<U>& other) const noexcept {
        return memory_ == other.memory_;
    }

 private:
    template <typename U>
    friend class HandlerAllocator;

    HandlerMemory* memory_;
};

/// `handler`, which waits in `memory`.
template <typename Handler>
auto in_memory(HandlerMemory& memory, Handler handler) {
    return asio::bind_allocator(HandlerAllocator<int>(memory), std::move(handler));
}

}  // namespace echo_server
