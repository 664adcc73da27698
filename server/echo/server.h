// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <system_error>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "echo/handler_memory.h"
#include "echo/worker.h"
#include "echo_dispatch.h"

namespace echo_server {

/// Accepts connections from one listening socket and echoes each of them. They are spread over threads at accept, and
/// share nothing from then on.
class EchoServer {
 public:
    struct Settings {
        bool log_connections = false;          ///< each, with the address and port that its client dialled
        std::chrono::seconds idle_timeout{0};  ///< ends a connection on which no byte moved for so long; 0: never
    };

    /// Serves `listener`, a listening TCP socket, once run() is called, by one thread for each of `counters`, which outlive
    /// the object: the calling thread and, from start_threads() on, more. Throws std::runtime_error if there are too few
    /// descriptors for that.
    EchoServer(Fd listener, Settings settings, std::span<echo_counters> counters);
    ~EchoServer();
    EchoServer(const EchoServer&) = delete;
    EchoServer& operator=(const EchoServer&) = delete;

    /// For what else is to happen between connections, in the thread that calls run(): signals, say.
    asio::io_context& io() { return workers_.front()->io(); }

    /// Throws std::runtime_error if the system refuses them.
    void start_threads();

    /// Serves until a drain is over or stop() is called. Open connections end with the object. Throws std::runtime_error if
    /// the listener was destroyed from outside: no client will come any more.
    void run();

    /// How many connections may be open at a time; while they are, newcomers wait in the kernel's backlog.
    void set_max_connections(std::size_t most) { max_connections_ = most; }
    [[nodiscard]] std::size_t max_connections() const { return max_connections_; }

    /// Who serves the connections that clients have completed, but that are not accepted yet.
    enum class Queue { ours, left_to_another_process };

    /// Accepts that queue, if it is ours, for as long as `handshakes_under_way` says that clients are about to get into it,
    /// then closes the listener, and lets run() return when all connections have ended. All of that may last until
    /// `timeout`. To be called once, by a handler of io().
    void drain(std::chrono::seconds timeout, Queue queue, std::function<bool()> handshakes_under_way);

    /// Lets run() return at once.
    void stop();

    /// The listening socket; the server goes on owning it.
    [[nodiscard]] int listener() { return acceptor_.native_handle(); }
    [[nodiscard]] asio::ip::tcp::endpoint local_endpoint() const { return acceptor_.local_endpoint(); }
    [[nodiscard]] std::size_t open_connections() const;
    /// False once a drain has closed the listener.
    [[nodiscard]] bool is_accepting() const { return acceptor_.is_open(); }

 private:
    // The accept loop. As long as the listener is open, it waits for exactly one thing: clients, or the end of a pause.
    // (Not by async_accept: that allocates before it calls its handler, so without memory the handler would be lost.)
    void wait_for_clients();
    void accept_clients();
    void pause_accepting(std::chrono::milliseconds duration);
    [[nodiscard]] bool is_full() const { return open_connections() >= max_connections_; }
    enum class Accepted { all, some, as_many_as_allowed, failed };
    // Starts sessions for clients that are queued. After all of them, a drain closes the listener; some: there may be more.
    // Throws std::runtime_error if nobody can come any more.
    Accepted accept_some(std::error_code& error);
    bool more_to_come();
    // Nothing, with errno set, if there is none.
    Fd accept_one();

    void start_session(Fd client);
    void on_session_end();
    // In the thread of any worker but the first.
    void on_session_end_elsewhere() noexcept;
    void stop_when_drained();
    void join_threads();

    HandlerMemory accept_memory_;  // before the workers, which destroy what waits in them
    HandlerMemory drain_memory_;
    HandlerMemory end_memory_;
    std::vector<std::unique_ptr<Worker>> workers_;  // the first in the thread that calls run()
    std::size_t next_worker_ = 0;
    asio::ip::tcp::acceptor acceptor_;
    asio::steady_timer accept_pause_;
    asio::steady_timer drain_limit_;
    // Whether the first thread waits for sessions to end, and whether another one has told it so already. Set before the
    // sessions are counted, and read after one was counted as ended, so that no end is missed.
    std::atomic<bool> ends_matter_ = false;
    std::atomic<bool> end_posted_ = false;
    Warnings warnings_;
    Settings settings_;
    std::size_t max_connections_ = std::numeric_limits<std::size_t>::max();
    bool draining_ = false;
    std::function<bool()> handshakes_under_way_;
    std::chrono::milliseconds handshake_pause_{0};
};

}  // namespace echo_server
