// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/background.h"
#include "dispatch/running_servers.h"
#include "echo/handler_memory.h"
#include "service/signal_loop.h"

namespace echo_server {

/// On SIGUSR1, writes what 'echo-server status' prints of this server into the log. It reads the maps that the process
/// holds, so it needs no privilege (before Linux 5.19: CAP_BPF, which a server keeps there). It reads in a thread of
/// its own: clients do not wait for it.
class StatusOnSignal {
 public:
    /// `memory` outlives `io`, in which the handlers wait.
    StatusOnSignal(asio::io_context& io, HandlerMemory& memory);

    /// Answers SIGUSR1 from now on, in the thread that runs `io`. `server` is this process as other processes see it;
    /// `is_attached` returns what state_of() needs to know, or throws std::runtime_error.
    void start(RunningServer server, std::function<std::optional<bool>()> is_attached);

 private:
    // Runs a step, and logs why it failed, if it did. Returns whether it succeeded.
    template <typename Step>
    bool attempt(Step step) noexcept;
    bool begin() noexcept;
    // Returns whether it has begun anew.
    bool finish() noexcept;

    Background<std::string> reading_;
    SignalLoop signals_;
    std::shared_ptr<RunningServer> server_;  // the thread may outlive this object
    std::function<std::optional<bool>()> is_attached_;
    std::optional<bool> attached_;  // when the reading began
};

}  // namespace echo_server
