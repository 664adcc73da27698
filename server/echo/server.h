// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "echo/worker.h"
#include "echo_dispatch.h"

namespace echo_server {

/// Accepts connections from one listening socket and echoes each of them. Connections are spread over threads at
/// accept; the threads share the number of open connections, and the figures by port, and nothing else.
class EchoServer {
 public:
    /// Serves `listener`, a listening TCP socket, once run() is called, by a thread for each of `counters`: the
    /// calling thread and, from start_threads() on, others. All of them count in `port_stats`, which has an element for
    /// each port. Both spans outlive the object. Ends a connection on which no byte moved for `idle_timeout`; 0 is
    /// never. Logs each connection, with the address and port that its client dialled, if `log_connections` says so.
    /// Throws std::system_error if there are too few descriptors for so many threads.
    EchoServer(Fd listener, std::span<echo_counters> counters, std::span<echo_port_stats> port_stats,
               std::chrono::seconds idle_timeout, bool log_connections);
    ~EchoServer();

    /// The event loop of the thread that calls run(), for signals and timers of the caller.
    asio::io_context& io() { return workers_.front()->io(); }
    /// Where handlers wait in it that must not need the heap.
    HandlerMemory& memory() { return workers_.front()->memory(); }

    /// Limits the open connections; at the limit, new clients wait in the kernel's backlog. To be called before run().
    void set_max_connections(std::size_t limit) { max_connections_ = limit; }
    [[nodiscard]] std::size_t max_connections() const { return max_connections_; }

    /// Throws std::runtime_error if the system refuses threads.
    void start_threads();

    /// Serves until a drain is over or stop() is called. Open connections end with the object. Throws
    /// std::runtime_error if the listener was destroyed from outside: no client will come any more.
    void run();

    /// Accepts the backlog, unless `leave_backlog` leaves it to another process that serves the listener. Then closes
    /// the listener, and lets run() return when all connections have ended. All of that may last until `timeout`. To be
    /// called once, by a handler of io().
    void drain(std::chrono::seconds timeout, bool leave_backlog);

    /// Whether the loop of every thread has turned since it was last asked; the first call returns true. A thread that
    /// hangs does not turn. To be called by a handler of io().
    bool all_threads_have_turned();

    /// Lets run() return at once.
    void stop();

    /// The listening socket, which the server goes on owning.
    [[nodiscard]] int listener() { return listener_.native_handle(); }
    [[nodiscard]] std::size_t open_connections() const { return open_; }
    /// False once a drain has closed the listener.
    [[nodiscard]] bool is_accepting() const { return listener_.is_open(); }

 private:
    // The accept loop, which waits for exactly one thing: clients, or the end of a pause.
    // (Not by async_accept(): that allocates before it calls its handler, so without memory the handler would be lost.)
    void accept_clients();
    void pause_accepting(std::chrono::milliseconds duration);
    // Starts a session for each client in the backlog, up to a number. In a drain it closes the listener once the
    // backlog is empty. Returns how long to pause before the next call, or nothing: until clients come.
    std::optional<std::chrono::milliseconds> accept_some();
    // Returns 0 or an errno.
    int accept_one();

    // In any thread.
    void on_connection_end() noexcept;
    void join_threads();

    std::vector<std::unique_ptr<Worker>> workers_;  // the first in the thread that calls run()
    std::vector<std::thread> threads_;              // of the others
    std::size_t next_worker_ = 0;
    asio::posix::stream_descriptor listener_;  // not an acceptor, which would want to know its family
    asio::steady_timer accept_pause_;
    asio::steady_timer drain_limit_;
    std::atomic<std::size_t> open_ = 0;  // connections, in all threads
    std::atomic<bool> draining_ = false;
    std::atomic<bool> wakeup_posted_ = false;
    Warnings warnings_;
    bool log_connections_;
    std::size_t max_connections_ = std::numeric_limits<std::size_t>::max();
};

}  // namespace echo_server
