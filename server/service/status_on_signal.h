// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/background.h"
#include "dispatch/instances.h"
#include "echo/handler_memory.h"
#include "service/signal_loop.h"

namespace echo_server {

/// On SIGUSR1, writes what 'echo-server status' prints of this server into the log. It reads the maps that the process
/// holds, so it needs no privilege (before Linux 5.19: CAP_BPF, which a server keeps there). It reads in a thread of
/// its own: clients do not wait for it. On SIGUSR2, zeroes the figures by port. Of both at once, SIGUSR1 comes first:
/// no figure is lost, and no text has a part of each state.
class StatusOnSignal {
 public:
    /// What it needs of the server.
    struct Calls {
        std::function<std::optional<bool>()> is_attached;  ///< what state_of() needs, or throws std::runtime_error
        std::function<void()> reset_port_stats;            ///< as Dispatcher has it
    };

    /// Both memories outlive `io`, in which the handlers wait.
    StatusOnSignal(asio::io_context& io, HandlerMemory& of_status, HandlerMemory& of_reset);

    /// Answers the signals from now on, in the thread that runs `io`. `server` is this process as other processes see
    /// it.
    void start(Instance server, Calls calls);

 private:
    // Runs a step, and logs why it failed, if it did. Returns whether it succeeded.
    template <typename Step>
    bool attempt(Step step) noexcept;
    bool begin() noexcept;
    // Returns whether it has begun anew.
    bool finish() noexcept;
    void reset_port_stats_if_due() noexcept;

    Background<std::string> reading_;
    SignalLoop status_signals_;
    SignalLoop reset_signals_;
    std::shared_ptr<Instance> server_;  // the thread may outlive this object
    Calls calls_;
    std::optional<bool> attached_;  // when the reading began
    bool reads_ = false;
    bool reset_due_ = false;
};

}  // namespace echo_server
