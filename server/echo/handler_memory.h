// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <new>
#include <utility>

namespace echo_server {

/// Room for one pending Asio handler, so that a loop which waits for one thing after the other can always wait again,
/// even when the heap is exhausted. Outlives the handler.
class HandlerMemory {
 public:
    HandlerMemory() = default;
    HandlerMemory(const HandlerMemory&) = delete;
    HandlerMemory& operator=(const HandlerMemory&) = delete;
    ~HandlerMemory() { assert(!in_use_); }  // or its io_context will destroy a handler in memory that is gone

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

/// The allocator through which Asio takes that room (Asio, "Custom Memory Allocation").
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

/// A handler that waits in memory of its own.
template <typename Handler>
class InMemory {
 public:
    using allocator_type = HandlerAllocator<Handler>;

    InMemory(HandlerMemory& memory, Handler handler) : memory_(&memory), handler_(std::move(handler)) {}
    [[nodiscard]] allocator_type get_allocator() const noexcept { return allocator_type(*memory_); }

    template <typename... Args>
    void operator()(Args&&... args) {
        handler_(std::forward<Args>(args)...);
    }

 private:
    HandlerMemory* memory_;
    Handler handler_;
};

}  // namespace echo_server
