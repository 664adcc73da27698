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

/// Preallocated storage for the handlers that wait in one io_context, which it must outlive, so that a loop which waits
/// for one thing after the other can wait again when the heap is exhausted. For any thread.
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
        alignas(std::max_align_t) std::array<std::byte, 512> bytes;  // first: has the address of the slot
        std::atomic<bool> in_use = false;
    };
    // Each loop has one handler that waits: of the worker three, of EchoServer three, of Lifecycle two.
    std::array<Slot, 8> slots_;
};

/// `handler`, which waits in `memory` (Asio, "Custom Memory Allocation").
template <typename Handler>
auto in_memory(HandlerMemory& memory, Handler handler) {
    return asio::bind_allocator(std::pmr::polymorphic_allocator<std::byte>(&memory), std::move(handler));
}

/// What a thread of the server runs: its event loop, and the sessions that it was given. It shares none of them with
/// other threads. It ends them at its own end; its thread was joined by then.
class Worker {
 public:
    /// Counts in `counters` and, by port, in `port_stats`; both outlive it. An `idle_timeout` of 0 is none. `own` is
    /// what the listening socket is bound to. Throws std::system_error.
    Worker(echo_counters& counters, std::span<echo_port_stats> port_stats, std::chrono::seconds idle_timeout,
           const asio::ip::tcp::endpoint& own);

    /// `call` is called in the worker's thread at each connection's end.
    void on_connection_end(std::function<void()> call) { context_.on_end = std::move(call); }

    /// Serves in the calling thread until stop() is called.
    void run();
    /// For any thread.
    void stop() { io_.stop(); }

    /// Serves `client`, a non-blocking socket. `serve` is for the worker's own thread, `hand_over` for any other.
    /// Both throw std::bad_alloc, which closes the connection; then the caller counts it.
    void serve(Fd client);
    void hand_over(Fd client);

    /// Whether the loop has turned since the last call that returned true: has run the handler that the call posted.
    /// For one other thread; takes nothing from the heap.
    bool has_turned();

    /// Counts a connection that was accepted, and closed before it had a session. For the worker's own thread.
    void count_refused();

    asio::io_context& io() { return io_; }
    HandlerMemory& memory() { return memory_; }
    [[nodiscard]] echo_counters& counters() const { return context_.counters; }

 private:
    void go_on(Session& session, bool only_input) noexcept;
    void wait_for_events();
    void handle_events();
    // Ends the sessions that have timed out, and does so again and again.
    void sweep();

    HandlerMemory memory_;  // before io_, which destroys the handlers that wait in it
    std::atomic<bool> turn_is_due_ = false;
    // Only one thread uses its sockets: locks would only cost.
    asio::io_context io_{ASIO_CONCURRENCY_HINT_UNSAFE_IO};
    // Where the sockets of the sessions wait: "Threads and sessions" in server/README.md says why.
    asio::posix::stream_descriptor epoll_;
    SessionContext context_;
    asio::steady_timer sweep_timer_{io_};
};

}  // namespace echo_server
