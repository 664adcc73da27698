// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <limits>
#include <string_view>
#include <system_error>

#include "echo_session.h"
#include "fd.h"
#include "handler_memory.h"

/// Accepts connections from one listening socket and echoes each of them, in one thread.
class EchoServer {
 public:
    struct Settings {
        bool log_connections = false;          ///< each, with the address and port that its client dialled
        std::chrono::seconds idle_timeout{0};  ///< ends a connection on which no byte moved for so long; 0: never
    };

    /// Serves `listener`, a listening TCP socket, once run() is called, and counts in `counters`, which outlive it.
    EchoServer(Fd listener, Settings settings, echo_counters& counters);
    ~EchoServer();
    EchoServer(const EchoServer&) = delete;
    EchoServer& operator=(const EchoServer&) = delete;

    /// For what else is to happen between connections: signals, say.
    asio::io_context& io() { return io_; }

    /// Serves until a drain is over or stop() is called. Open connections end with the object.
    void run();

    /// How many connections may be open at a time; while they are, newcomers wait in the kernel's backlog.
    void set_max_connections(std::size_t most) { max_connections_ = most; }
    [[nodiscard]] std::size_t max_connections() const { return max_connections_; }

    /// Who serves the connections that clients have completed, but that are not accepted yet.
    enum class Queue { ours, left_to_another_process };

    /// Accepts that queue, if it is ours, closes the listener, and lets run() return when all connections have ended, or
    /// after `timeout`. To be called once, by a handler of io().
    void drain(std::chrono::seconds timeout, Queue queue);

    /// Lets run() return at once.
    void stop() { io_.stop(); }

    /// The listening socket; the server goes on owning it.
    [[nodiscard]] int listener() { return acceptor_.native_handle(); }
    [[nodiscard]] asio::ip::tcp::endpoint local_endpoint() const { return acceptor_.local_endpoint(); }
    [[nodiscard]] std::size_t open_connections() const { return sessions_.open_sessions(); }

 private:
    // The accept loop. As long as the listener is open, it waits for exactly one thing: clients, or the end of a pause.
    // (Not by async_accept: that allocates before it calls its handler, so without memory the handler would be lost.)
    void wait_for_clients();
    void accept_clients();
    void pause_accepting(std::chrono::milliseconds duration);
    [[nodiscard]] bool is_full() const { return sessions_.open_sessions() >= max_connections_; }
    // Starts sessions for clients that are queued. Returns would_block if there are no more (a drain closes the listener
    // then), no error if there may be more, or what it was short of: no_descriptors, if is_full().
    std::error_code accept_some();

    // `peer` as accept() named it: the socket can't tell any more if the client has reset the connection since.
    void start_session(asio::ip::tcp::socket client, const asio::ip::tcp::endpoint& peer);
    void on_session_end();
    void stop_when_drained();
    void end_idle_sessions();

    // Logs a problem that may come up with every connection, at most once a second, and without memory if need be.
    void warn(std::string_view problem) noexcept;

    HandlerMemory accept_memory_;  // before io_, which destroys what waits in it
    HandlerMemory idle_memory_;
    HandlerMemory drain_memory_;
    SessionContext sessions_;  // before io_, whose handlers own the sessions that use it
    asio::io_context io_{1};
    asio::ip::tcp::acceptor acceptor_{io_};
    asio::steady_timer accept_pause_{io_};
    asio::steady_timer drain_limit_{io_};
    asio::steady_timer idle_check_{io_};
    std::chrono::steady_clock::time_point next_warning_;
    Settings settings_;
    std::size_t max_connections_ = std::numeric_limits<std::size_t>::max();
    bool draining_ = false;
};
