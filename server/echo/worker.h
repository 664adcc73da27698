// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/bind_allocator.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory_resource>
#include <new>
#include <span>
#include <utility>

#include "base/os.h"
#include "echo/session.h"

namespace echo_server {

/// Preallocated memory for handlers of one io_context, so that a loop can wait for its next event when the heap is
/// exhausted. Must outlive the io_context. For any thread.
class HandlerMemory : public std::pmr::memory_resource {
    void* do_allocate(std::size_t size, std::size_t /*alignment*/) override {
        for (auto& slot : slots_)
            if (size <= slot.bytes.size() && !slot.in_use.exchange(true)) return slot.bytes.data();
        throw std::bad_alloc();
    }
    void do_deallocate(void* memory, std::size_t /*size*/, std::size_t /*alignment*/) override {
        static_cast<Slot*>(memory)->in_use = false;
    }
    [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }

    struct Slot {
        alignas(std::max_align_t) std::array<std::byte, 512> bytes;  // first, so its address is that of the slot
        std::atomic<bool> in_use = false;
    };
    // One handler waits for each loop. The worker has three loops, EchoServer three, Lifecycle two.
    std::array<Slot, 8> slots_;
};

/// `handler`, to be stored in `memory` while it waits (Asio, "Custom Memory Allocation").
template <typename Handler>
auto in_memory(HandlerMemory& memory, Handler handler) {
    return asio::bind_allocator(std::pmr::polymorphic_allocator<std::byte>(&memory), std::move(handler));
}

/// The event loop of one thread, and its sessions, which no other thread uses. They end with this object, which must
/// outlive its thread.
class Worker {
 public:
    /// Counts in `counters` and, by port, in `port_stats`; both must outlive it. An `idle_timeout` of 0 means none.
    /// `own` is what the listening socket is bound to. Throws std::system_error.
    Worker(echo_counters& counters, std::span<echo_port_stats> port_stats, std::chrono::seconds idle_timeout,
           const asio::ip::tcp::endpoint& own);

    /// Calls `call` in the worker's thread at the end of each connection.
    void on_connection_end(std::function<void()> call) { context_.on_end = std::move(call); }

    /// Serves in the calling thread until stop() is called.
    void run();
    /// For any thread.
    void stop() { io_.stop(); }

    /// Serves `client`, a non-blocking socket. serve() is for the worker's own thread, hand_over() for any other. If
    /// one throws std::bad_alloc, the connection is closed, and the caller must call count_refused().
    void serve(Fd client);
    void hand_over(Fd client);

    /// Whether the loop has run since the last call that returned true. (Such a call posts a handler, which notes that
    /// it runs.) Only one thread may call it. Allocates nothing from the heap.
    bool has_turned();

    /// Counts a connection that was accepted, but closed before it had a session. For the worker's own thread.
    void count_refused();

    asio::io_context& io() { return io_; }
    HandlerMemory& memory() { return memory_; }
    [[nodiscard]] echo_counters& counters() const { return context_.counters; }

 private:
    void go_on(Session& session, bool only_input) noexcept;
    void wait_for_events();
    void handle_events();
    // Ends the sessions that have timed out, once a second.
    void sweep();

    HandlerMemory memory_;  // before io_, whose destructor destroys handlers in it
    std::atomic<bool> turn_is_due_ = false;
    // Without locks around sockets, because only one thread uses them.
    asio::io_context io_{ASIO_CONCURRENCY_HINT_UNSAFE_IO};
    // For the sockets of the sessions. "Threads and sessions" in server/README.md says why they don't wait in Asio's.
    asio::posix::stream_descriptor epoll_;
    SessionContext context_;
    asio::steady_timer sweep_timer_{io_};
};

}  // namespace echo_server
