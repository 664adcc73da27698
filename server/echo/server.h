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

/// Accepts connections from one listening socket and echoes each of them. Spreads the accepted connections over its
/// threads, which share only the number of open connections and the per-port counters.
class EchoServer {
 public:
    /// run() serves `listener`, a listening TCP socket, with a thread for each of `counters`: the calling thread and
    /// those of start_threads(). All of them count in `port_stats`, which has an element for each port. Both spans must
    /// outlive the object. A connection ends if no byte moved for `idle_timeout`; 0 means never. With
    /// `log_connections`, each connection is logged, with the address and port that the client connected to. Throws
    /// std::system_error if there are too few descriptors for so many threads.
    EchoServer(Fd listener, std::span<echo_counters> counters, std::span<echo_port_stats> port_stats,
               std::chrono::seconds idle_timeout, bool log_connections);
    ~EchoServer();

    /// The event loop of the thread that calls run(), for signals and timers of the caller.
    asio::io_context& io() { return workers_.front()->io(); }
    /// Memory for handlers of this loop that must not need the heap.
    HandlerMemory& memory() { return workers_.front()->memory(); }

    /// Limits the open connections; at the limit, new ones wait in the kernel's backlog. To be called before run().
    void set_max_connections(std::size_t limit) { max_connections_ = limit; }
    [[nodiscard]] std::size_t max_connections() const { return max_connections_; }

    /// Throws std::runtime_error if the system refuses threads.
    void start_threads();

    /// Serves until a drain is over or stop() is called. Connections that are still open end with the object. Throws
    /// std::runtime_error if another program has destroyed the listener.
    void run();

    /// Accepts the backlog, closes the listener, and makes run() return when all connections have ended, or after
    /// `timeout`. With `leave_backlog`, the backlog stays for another process that serves the listener. To be called
    /// once, by a handler of io().
    void drain(std::chrono::seconds timeout, bool leave_backlog);

    /// Whether the event loop of every thread has run since the last call; the first call returns true. The loop of a
    /// thread that hangs does not run. To be called by a handler of io().
    bool all_threads_have_turned();

    /// Makes run() return at once.
    void stop();

    /// The listening socket, which still belongs to the server.
    [[nodiscard]] int listener() { return listener_.native_handle(); }
    [[nodiscard]] std::size_t open_connections() const { return open_; }
    /// False once a drain has closed the listener.
    [[nodiscard]] bool is_accepting() const { return listener_.is_open(); }

 private:
    // The accept loop. It always waits for exactly one thing: for connections, or for the end of a pause.
    // Not by async_accept(), which allocates before it calls its handler: without memory the handler would be lost.
    void accept_clients();
    void pause_accepting(std::chrono::milliseconds duration);
    // Starts a session for each connection in the backlog, at most 256 of them. In a drain it closes the listener when
    // the backlog is empty. Returns how long to pause before the next call, or nothing: then wait for connections.
    std::optional<std::chrono::milliseconds> accept_some();
    // Returns 0 or an errno.
    int accept_one();

    // For any thread.
    void on_connection_end() noexcept;
    void join_threads();

    std::vector<std::unique_ptr<Worker>> workers_;  // the first in the thread that calls run()
    std::vector<std::thread> threads_;              // of the others
    std::size_t next_worker_ = 0;
    asio::posix::stream_descriptor listener_;  // not an acceptor, which needs to know the address family
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
