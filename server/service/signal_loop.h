// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <optional>

#include "echo/handler_memory.h"

namespace echo_server {

/// Answers a signal by work that can be slow, one piece after the other. A step of the event loop does it, or begins it
/// in another thread (Background), and a step finishes it. After each piece there is a pause as long as the piece
/// needed, so a flood of signals, of which the kernel keeps one, gets max half of the time.
class SignalLoop {
 public:
    struct Steps {
        std::function<bool()> begin;   ///< begins the work; returns whether there is an end to wait for
        std::function<bool()> finish;  ///< called once the work has ended; returns whether it has begun anew
    };

    /// `signal` is blocked. `done` is a descriptor that is readable once the work has ended; nothing if there is never
    /// an end to wait for. `memory` outlives `io`, in which the handlers wait: the loop goes on without memory from the
    /// heap. Throws std::system_error.
    SignalLoop(asio::io_context& io, HandlerMemory& memory, int signal, std::optional<int> done = {});
    SignalLoop(const SignalLoop&) = delete;
    SignalLoop& operator=(const SignalLoop&) = delete;

    /// Waits for the signal from now on, in the thread that runs `io`. What a step throws, `io` throws.
    void start(Steps steps);

 private:
    void wait_for_signal();
    void wait_for_end();
    void pause();

    HandlerMemory& memory_;  // for one wait at a time: for a signal, the end of the work, or the end of a pause
    asio::posix::stream_descriptor signal_;
    asio::posix::stream_descriptor done_;
    asio::steady_timer pause_;
    std::chrono::steady_clock::time_point began_;
    Steps steps_;
};

}  // namespace echo_server
