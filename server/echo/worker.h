// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <thread>

#include "base/fd.h"
#include "echo/handler_memory.h"
#include "echo/session.h"

namespace echo_server {

/// A thread of the server: its event loop, and the sessions that it was given. Nothing of them is shared with others.
class Worker {
 public:
    /// Serves sockets of `family` and counts in `counters`, which outlive it. `idle_timeout` of 0 is none.
    Worker(asio::ip::tcp family, echo_counters& counters, std::chrono::seconds idle_timeout);
    /// Ends its sessions. Its thread was joined, if it had one.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    /// Is called in the worker's thread after each session's end.
    void on_session_end(std::function<void()> call) { sessions_.on_session_end = std::move(call); }

    /// Has run() called by a thread of its own. Throws std::system_error if there can be none.
    void start_thread();
    /// Serves in the calling thread until stop() is called.
    void run();
    /// For any thread.
    void stop() { io_.stop(); }
    /// Waits for the thread, if there is one, to end after stop().
    void join();

    /// Serves `client`, a non-blocking socket. `serve` is for the worker's own thread, `hand_over` for any other. Both throw
    /// std::bad_alloc if there is no memory for a session, or for the word to the thread. The connection ends then: serve()
    /// has counted that, after hand_over() the caller does.
    void serve(Fd client) { EchoSession::start(std::move(client), sessions_); }
    void hand_over(Fd client);

    asio::io_context& io() { return io_; }
    [[nodiscard]] echo_counters& counters() const { return sessions_.counters; }

 private:
    void end_idle_sessions();

    HandlerMemory idle_memory_;  // before io_, which destroys what waits in it
    SessionContext sessions_;    // before io_, whose handlers own the sessions that use it
    std::chrono::seconds idle_timeout_;
    // Only one thread ever uses its sockets: locks would only cost.
    asio::io_context io_{ASIO_CONCURRENCY_HINT_UNSAFE_IO};
    asio::executor_work_guard<asio::io_context::executor_type> until_stopped_ = asio::make_work_guard(io_);
    asio::steady_timer idle_check_{io_};
    std::thread thread_;
};

}  // namespace echo_server
