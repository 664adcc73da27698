// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <memory>
#include <mutex>
#include <thread>

#include "base/fd.h"
#include "base/privileges.h"
#include "dispatch/dispatcher.h"
#include "dispatch/instances.h"
#include "options.h"

namespace echo_server {

/// What a stop closes: the event loop closes it, and the housekeeper asks. Nothing slow is done with `mutex` held.
struct Gate {
    /// Closes the ports, unless systemd keeps the program attached (`keep_open`), and lets no reload begin any more.
    /// To be called by any thread, also again.
    void close(bool keep_open);

    std::mutex mutex;
    Link link;                ///< steers connections to the server
    Fd commands;              ///< the socket for 'echo-server reload'
    bool closed = false;      ///< nothing is reloaded, and systemd hears of no state but that of the stop
    bool stays_open = false;  ///< in a stop: systemd keeps the program attached
};

/// Does in a thread of its own what may be slow, or hang with a file system, so that clients never wait for it: reloads
/// on SIGHUP and for 'echo-server reload', logs the status on SIGUSR1, and resets the figures by port on SIGUSR2. One
/// after the other; of signals that come together in this order, so no figure is lost between the last two.
class Housekeeper {
 public:
    /// What it needs, also when it hangs and everything else has ended. `io` alone may end once the gate is closed.
    struct Facts {
        Options options;
        User user;
        std::shared_ptr<Dispatcher> dispatcher;
        std::shared_ptr<Gate> gate;
        int listener;          ///< in echo_socket; the server owns it
        Instance self;         ///< this server as others see it
        asio::io_context& io;  ///< throws std::runtime_error if a reload finds that nothing is steered any more
    };

    /// Starts the thread, which has the rights of the calling thread. Signals are blocked. Throws std::system_error.
    explicit Housekeeper(Facts facts);
    /// Closes the gate, and ends the thread; one that hangs is left alone.
    ~Housekeeper();

 private:
    std::shared_ptr<Gate> gate_;
    Fd end_;  // connected to the thread: each end tells the other that it is gone
    std::thread thread_;
};

}  // namespace echo_server
