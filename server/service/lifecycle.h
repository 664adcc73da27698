// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "base/os.h"
#include "base/systemd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/instances.h"
#include "echo/server.h"
#include "options.h"
#include "service/ports.h"

namespace echo_server {

/// What a stop closes. The event loop closes it, and the housekeeper asks whether it is closed. Hold `mutex` only for
/// quick work.
struct Gate {
    /// Closes the ports, unless systemd keeps the program (`stays`), and refuses further reloads. Any thread may call
    /// it, more than once.
    void close(bool stays);

    std::mutex mutex;
    Link link;            ///< steers connections to the server
    Fd commands;          ///< the socket for 'echo-server reload'
    bool closed = false;  ///< no more reloads, and only the stop still writes to systemd
};

/// A thread for work that may be slow, or hang with a file system, so that clients never wait for it. It reloads on
/// SIGHUP and for 'echo-server reload', looks each second for programs that listen on our ports, logs the status on
/// SIGUSR1, and resets the figures by port on SIGUSR2. One task at a time. Signals that come together are handled in
/// this order, so the status shows the figures that the reset clears.
class Housekeeper {
 public:
    /// What the thread uses. It may hang and outlive its Housekeeper, so it owns all of this, except `io` and
    /// the socket of `listener`, which it uses only while the gate is open.
    struct Facts {
        Options options;
        OpenPorts ports;
        uid_t user;  ///< may reload, as root may
        StartTerminal terminal;
        std::shared_ptr<Dispatcher> dispatcher;
        std::shared_ptr<Gate> gate;
        int listener;          ///< in echo_socket; the server owns it
        Instance self;         ///< this server as others see it
        asio::io_context& io;  ///< its run() throws if a reload finds the ports closed from outside
    };

    /// Starts the thread, which waits for begin(). It gets the rights and the blocked signals of the calling thread.
    /// Throws std::system_error.
    explicit Housekeeper(Facts facts);
    /// Closes the gate, and ends the thread. A thread that hangs is left alone.
    ~Housekeeper();

    /// To be called once, when the start is over.
    void begin();

 private:
    std::shared_ptr<Gate> gate_;
    Fd end_;  // connected to the thread: each side notices when the other ends
    std::thread thread_;
};

/// The end of a running server: a drain after SIGINT, SIGTERM or a replacement. A second stop signal ends the drain.
/// Answers systemd's watchdog until then.
class Lifecycle {
 public:
    /// The references must outlive this object. Open connections have `drain_timeout` after a stop.
    Lifecycle(std::chrono::seconds drain_timeout, EchoServer& server, Gate& gate, DescriptorStore& store);
    Lifecycle(const Lifecycle&) = delete;
    Lifecycle& operator=(const Lifecycle&) = delete;

    /// An eventfd(2): the process that takes over writes to it.
    [[nodiscard]] int replaced_event() { return replaced_.native_handle(); }

    /// Handles events from now on, in the thread that runs the server.
    void begin();

    /// Tells the log and systemd that the server has stopped.
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
    asio::posix::stream_descriptor stop_signals_;
    asio::posix::stream_descriptor replaced_;
    asio::steady_timer watchdog_;
    std::optional<Reason> stopping_;
};

}  // namespace echo_server
