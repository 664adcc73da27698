// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <optional>

#include "base/systemd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/instances.h"
#include "echo/handler_memory.h"
#include "echo/server.h"
#include "net/port_set.h"
#include "options.h"
#include "service/reload.h"
#include "service/status_on_signal.h"

namespace echo_server {

/// What can happen to a running server: SIGHUP reloads its ports, SIGUSR1 logs its status, SIGUSR2 zeroes the figures
/// by port, SIGINT and SIGTERM drain it, and so does another process that takes over. A second stop signal ends the
/// drain. Answers systemd's watchdog meanwhile. Owns the attachment of the program: the ports close with this object,
/// if not before.
class Lifecycle {
 public:
    /// Where the handlers wait in the server's event loop: must outlive the server.
    struct Memory {
        Reload::Memory reload;
        HandlerMemory status;
        HandlerMemory anew;
        HandlerMemory stop;
        HandlerMemory watchdog;
    };

    /// All arguments outlive this object. The listener of `server` is in echo_socket.
    Lifecycle(const Options& options, Dispatcher& dispatcher, EchoServer& server, DescriptorStore& store,
              Memory& memory);
    Lifecycle(const Lifecycle&) = delete;
    Lifecycle& operator=(const Lifecycle&) = delete;

    /// Decides which ports to open, and logs warnings. Throws std::runtime_error if they may not be opened, or if
    /// SIGINT or SIGTERM comes meanwhile.
    PortSet plan_ports();

    /// An eventfd(2): the process that takes over writes to it.
    [[nodiscard]] int replaced_event() { return replaced_.native_handle(); }

    /// Returns the descriptor of the link.
    int own(Link link);

    /// Handles events from now on, in the thread that runs the server. `self` is this server as others see it.
    void begin(Instance self);

    /// To be called when the server has stopped: says so, to the log and to systemd.
    void end();

 private:
    enum class Reason { signal, replaced };

    void wait_for_stop_signal();
    void wait_for_replacement();
    void answer_watchdog(std::chrono::microseconds period);
    void stop(Reason reason);
    void replaced_in_drain();
    // As state_of() needs it. Throws std::runtime_error if the maps can't be read.
    [[nodiscard]] std::optional<bool> is_attached() const;

    const Options& options_;
    Dispatcher& dispatcher_;
    EchoServer& server_;
    DescriptorStore& store_;
    HandlerMemory& stop_memory_;
    HandlerMemory& watchdog_memory_;
    Link link_;
    // A signalfd other than SIGHUP's: a signalfd returns the lowest number first, and SIGHUP is 1.
    asio::posix::stream_descriptor stop_signals_;
    asio::posix::stream_descriptor replaced_;
    asio::steady_timer watchdog_;
    Reload reload_;
    StatusOnSignal status_;
    std::optional<Reason> stopping_;
    bool stays_open_ = false;  // in the stop, systemd keeps the program attached
};

}  // namespace echo_server
