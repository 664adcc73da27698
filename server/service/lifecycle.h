// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <optional>

#include "base/systemd.h"
#include "echo/server.h"
#include "service/housekeeper.h"

namespace echo_server {

/// The end of a running server: SIGINT and SIGTERM drain it, and so does another process that takes over. A second stop
/// signal ends the drain. Answers systemd's watchdog until then.
class Lifecycle {
 public:
    /// Where the handlers wait in the server's event loop: must outlive the server.
    struct Memory {
        HandlerMemory stop;
        HandlerMemory watchdog;
    };

    /// All but the time outlive this object. Open connections have `drain_timeout` after a stop.
    Lifecycle(std::chrono::seconds drain_timeout, EchoServer& server, Gate& gate, DescriptorStore& store,
              Memory& memory);
    Lifecycle(const Lifecycle&) = delete;
    Lifecycle& operator=(const Lifecycle&) = delete;

    /// An eventfd(2): the process that takes over writes to it.
    [[nodiscard]] int replaced_event() { return replaced_.native_handle(); }

    /// Handles events from now on, in the thread that runs the server.
    void begin();

    /// To be called when the server has stopped: says so, to the log and to systemd.
    void end();

 private:
    enum class Reason { signal, replaced };

    void wait_for_stop_signal();
    void wait_for_replacement();
    void answer_watchdog(std::chrono::microseconds period);
    void stop(Reason reason);

    std::chrono::seconds drain_timeout_;
    EchoServer& server_;
    Gate& gate_;
    DescriptorStore& store_;
    Memory& memory_;
    asio::posix::stream_descriptor stop_signals_;
    asio::posix::stream_descriptor replaced_;
    asio::steady_timer watchdog_;
    std::optional<Reason> stopping_;
};

}  // namespace echo_server
