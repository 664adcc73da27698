// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <functional>
#include <optional>

#include "base/privileges.h"
#include "dispatch/dispatcher.h"
#include "dispatch/pins.h"
#include "echo/handler_memory.h"
#include "echo/server.h"
#include "options.h"
#include "service/reload.h"
#include "service/takeover.h"

namespace echo_server {

/// The whole server, from its set-up to its end.
class Service {
 public:
    /// Sets up everything, attaches the program, drops privileges, and ends what is to be replaced. Throws
    /// std::runtime_error if any of that can't be, or if SIGINT or SIGTERM came meanwhile; nothing is left then, and what
    /// was to be replaced goes on. `options` outlive the object. To be called with signals held back.
    explicit Service(const Options& options);
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    /// Serves until a signal, or until another process takes over.
    void run();

 private:
    /// Detaches the program when it goes, and so before what is declared above it does.
    struct Detacher {
        Dispatcher& dispatcher;
        ~Detacher() { dispatcher.detach(); }
    };

    Fd listener();
    void publish();
    void open_ports(const PortSet& ports);
    void pin_maps();
    void announce(const PortSet& ports, bool kept_cap_bpf);
    // Says what the user it runs as now won't be able to do.
    void warn_of_lost_rights(bool kept_cap_bpf) const;

    void wait_for_stop_signal();
    void wait_for_replacement();
    void stop(EchoServer::Backlog backlog);
    // Tells whether clients have begun to connect to a port that is open now, and are not in the queue yet.
    [[nodiscard]] std::function<bool()> begun_connections();

    const Options& options_;
    bool by_root_;
    User user_;
    Dispatcher dispatcher_;
    std::optional<Takeover> takeover_;
    HandlerMemory reload_memory_;  // before the server, in which what uses them waits
    HandlerMemory stop_memory_;
    EchoServer server_;
    Detacher detacher_{dispatcher_};  // the ports go back before the socket closes
    Reload reload_;
    asio::posix::stream_descriptor stop_signals_;  // a descriptor of their own, as of several SIGHUP comes first
    asio::posix::stream_descriptor replaced_;      // an eventfd, readable once another process serves our listener
    Pins pins_;
    bool stopping_ = false;
    std::uint64_t netns_ = 0;  // inode of the network namespace
};

}  // namespace echo_server
