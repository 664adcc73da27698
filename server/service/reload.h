// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <cstdint>
#include <string>

#include "base/background.h"
#include "dispatch/dispatcher.h"
#include "echo/handler_memory.h"
#include "options.h"
#include "service/ports.h"
#include "service/reload_command.h"
#include "service/signal_loop.h"

namespace echo_server {

/// Decides which ports are open: at the start, and again on each SIGHUP. Steps that can hang or be slow (reading the
/// ports file, looking for other listeners) run in a thread of their own; the event loop only changes the map.
class Reload {
 public:
    /// Where the handlers wait in the event loop.
    struct Memory {
        HandlerMemory hangups;
        HandlerMemory commands;
    };

    /// `memory` outlives `io`; all others outlive this object. `listener` is in echo_socket, and `link` steers
    /// connections to it once wait_for_hangup() is called.
    Reload(asio::io_context& io, Memory& memory, const Options& options, Dispatcher& dispatcher, const Link& link,
           int listener);
    Reload(const Reload&) = delete;
    Reload& operator=(const Reload&) = delete;

    /// Plans the ports of the start. Throws std::runtime_error if they may not be opened, or if a stop signal comes
    /// meanwhile; `stop_signals` is a signalfd for these.
    PortPlan first_plan(int stop_signals);

    /// Reloads on each SIGHUP from now on, in the thread that runs `io`, and answers 'echo-server reload'. If a SIGHUP
    /// finds that nothing is steered to the listener any more, `io` throws std::runtime_error. Throws std::system_error
    /// if there can be no socket for the command.
    void wait_for_hangup();

    /// From now on the ports stay closed.
    void stop();

 private:
    // Runs a step, and logs if memory is short. Returns the result of the step.
    template <typename Step>
    bool with_memory(Step step) noexcept;
    // Returns whether a plan is being made.
    bool start();
    void finish();
    // Returns the line about what has changed. Throws std::runtime_error.
    std::string apply(const PortPlan& plan);
    void check_steering();
    // Tells the log, systemd and the commands how the reload went: `line`, and why it failed, if it did.
    void report(const std::string& line, const std::string& failure = {});
    [[nodiscard]] std::string status_line(const std::string& failure = {}) const;

    const Options& options_;
    Dispatcher& dispatcher_;
    const Link& link_;
    int listener_;
    std::uint64_t listener_cookie_;
    Background<PortPlan> planning_;
    SignalLoop hangups_;
    ReloadSocket commands_;
    bool stopping_ = false;
};

}  // namespace echo_server
