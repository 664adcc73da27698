// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>
#include <system_error>

#include "echo/handler_memory.h"

namespace echo_server {

class Session;

/// Waits for the sockets of a thread's sessions by an epoll instance of its own, which is a single descriptor for
/// Asio. An event is then a call, and a socket that goes on waiting costs nothing. (Asio's wait for a socket is a
/// handler in memory of its own, put into queues and out of them for each event.)
class Poller {
 public:
    enum class Event : std::uint8_t {
        none,
        input,       ///< or an end; as long as some is there
        input_once,  ///< the same; told once, and then the wait is over
        new_input,   ///< the same, only when more has come: edge-triggered, which saves the kernel a look at the socket
        room,        ///< in a socket that was full
        end,         ///< of the connection: whatever happens to a socket that was shut down
    };

    /// Called in the thread of `io` with a session whose socket is ready. If it waits for new input, `only_input` says
    /// that there is neither an end nor urgent data. The call may end that session, and must not throw.
    using OnEvent = std::function<void(Session&, bool only_input)>;

    /// `memory` outlives `io`. Throws std::system_error if there is no descriptor.
    Poller(asio::io_context& io, HandlerMemory& memory, OnEvent on_event);

    /// Waits for `event` on a socket of `session`, in place of what it waited for before, if it is not `fresh`. What is
    /// there already is an event, too. Returns the error of epoll_ctl(2).
    std::error_code watch(int socket, Session& session, Event event, bool fresh);
    /// To be called before a socket is closed for which a wait is not over. (Closing ends the wait only if nobody else
    /// has the socket open, and whoever looks at /proc/PID/fd has it open for a moment.)
    void forget(int socket);

 private:
    void wait();
    void handle_events();

    asio::io_context& io_;
    HandlerMemory& memory_;
    asio::posix::stream_descriptor epoll_;
    OnEvent on_event_;
};

}  // namespace echo_server
