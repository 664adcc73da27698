// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/bind_allocator.hpp>
#include <cassert>
#include <cstddef>
#include <memory_resource>
#include <new>
#include <utility>

namespace echo_server {

/// Preallocated storage for one pending Asio handler, so that a loop which waits for one thing after the other can wait
/// again when the heap is exhausted. Must outlive the io_context in which the handler waits.
class HandlerMemory : public std::pmr::memory_resource {
 public:
    HandlerMemory() = default;
    HandlerMemory(const HandlerMemory&) = delete;
    HandlerMemory& operator=(const HandlerMemory&) = delete;
    ~HandlerMemory() override { assert(!in_use_); }  // or the io_context would destroy a handler in memory that is gone

 private:
    void* do_allocate(std::size_t size, std::size_t /*alignment*/) override {
        if (in_use_ || size > storage_.size()) throw std::bad_alloc();
        in_use_ = true;
        return storage_.data();
    }
    void do_deallocate(void* /*memory*/, std::size_t /*size*/, std::size_t /*alignment*/) override { in_use_ = false; }
    [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

    alignas(std::max_align_t) std::array<std::byte, 512> storage_;
    bool in_use_ = false;
};

/// `handler`, which waits in `memory` (Asio, "Custom Memory Allocation").
template <typename Handler>
auto in_memory(HandlerMemory& memory, Handler handler) {
    return asio::bind_allocator(std::pmr::polymorphic_allocator<std::byte>(&memory), std::move(handler));
}

}  // namespace echo_server
