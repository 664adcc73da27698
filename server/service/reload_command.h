// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/steady_timer.hpp>
#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "echo/handler_memory.h"

namespace echo_server {

// 'echo-server reload', and the UNIX socket by which a server tells it how the reload went. The server sends a byte
// once it will answer, and the command sends SIGHUP then: so the reload that answers comes after the edit of the ports
// file, and the kernel decides who may reload.

/// The server's side. Takes nothing from the heap once it listens.
class ReloadSocket {
 public:
    /// `memory` outlives `io`, in which the handlers wait.
    ReloadSocket(asio::io_context& io, HandlerMemory& memory);
    ReloadSocket(const ReloadSocket&) = delete;
    ReloadSocket& operator=(const ReloadSocket&) = delete;

    /// Commands find the server from now on. Throws std::system_error.
    void listen();

    /// To be called when a reload begins: answer() will answer the commands that wait now, and not those that come
    /// later.
    void begin_reload() noexcept;
    /// Tells these commands whether the reload succeeded, and `text`, one line. Only root and the server's own user get
    /// the text, because it may quote the ports file.
    void answer(bool success, std::string_view text) noexcept;

    /// Tells all commands that nothing is reloaded any more, and why. None finds the server from now on.
    void close(std::string_view why) noexcept;

 private:
    struct Command {
        Fd socket;
        bool may_read = false;  // the text of an answer
        bool is_due = false;    // the next answer is its own
    };
    void wait();
    void accept();
    void add(Fd socket) noexcept;
    static void tell(const Command& command, bool success, std::string_view text) noexcept;
    void pause(std::chrono::milliseconds duration);

    HandlerMemory& memory_;  // for one wait at a time: for a command, or the end of a pause
    asio::posix::stream_descriptor listener_;
    asio::steady_timer pause_;
    std::vector<Command> commands_;  // the oldest first
};

/// The command's side: lets the echo-server of this network namespace reload, waits until it has, and logs the server's
/// answer. `pid` tells which of several servers. Throws std::runtime_error, with the server's reason, if the reload has
/// failed, or if there is no answer in ten seconds.
void reload_server(std::optional<pid_t> pid);

}  // namespace echo_server
