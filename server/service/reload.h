// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <string>

#include "base/background.h"
#include "base/privileges.h"
#include "dispatch/dispatcher.h"
#include "echo/handler_memory.h"
#include "options.h"
#include "service/port_plan.h"

namespace echo_server {

/// Which ports are open: planned at the start, and again on each SIGHUP. What can hang or take long (the ports file, the
/// search for other listeners) runs in a thread of its own; the event loop only changes the map.
class Reload {
 public:
    /// `memory` outlives `io`, in which the handlers wait; all others outlive this object. `listener` is in echo_socket, and
    /// `attachment` steers connections to it once wait_for_hangup() is called.
    Reload(asio::io_context& io, HandlerMemory& memory, const Options& options, User user, Dispatcher& dispatcher,
           const Attachment& attachment, int listener);
    Reload(const Reload&) = delete;
    Reload& operator=(const Reload&) = delete;

    /// Plans the ports of the start. Throws std::runtime_error if they may not be opened, or if a stop signal, for which
    /// `stop_signals` is a descriptor, comes meanwhile.
    PortPlan first_plan(int stop_signals);

    /// Reloads on each SIGHUP from now on, in the thread that runs `io`. A SIGHUP that finds that nothing is steered to the
    /// listener any more lets `io` throw std::runtime_error.
    void wait_for_hangup();

    /// From now on the ports stay closed.
    void stop() { stopping_ = true; }

 private:
    // Runs a step, and says so if memory is short. Returns what the step returned.
    template <typename Step>
    bool with_memory(Step step) noexcept;
    // Returns whether a plan is being made.
    bool start();
    void finish();
    void apply();
    void wait_for_plan();
    void pause();
    void check_steering() const;
    [[nodiscard]] std::string status_line() const;

    HandlerMemory& memory_;  // the loop waits for one thing at a time: a signal, a plan, the end of a pause
    const Options& options_;
    User user_;
    Dispatcher& dispatcher_;
    const Attachment& attachment_;
    int listener_;
    std::uint64_t listener_cookie_;
    asio::posix::stream_descriptor hangup_;  // readable while SIGHUP waits
    Background<PortPlan> planning_;
    asio::posix::stream_descriptor planned_;  // readable once planning_ has a result
    asio::steady_timer pause_;
    std::chrono::steady_clock::time_point started_;
    bool stopping_ = false;
};

}  // namespace echo_server
