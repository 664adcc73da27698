// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <initializer_list>
#include <stdexcept>

#include "base/fd.h"

namespace echo_server {

// SIGHUP, SIGUSR1, SIGUSR2, SIGINT and SIGTERM are blocked, and read from signalfds in the event loop. Of each signal
// max one is pending, so a flood of SIGHUPs becomes one reload after the other, with time for clients in between.

/// Blocks them in the calling thread and in threads that it starts.
void block_signals();

/// Whether a signal that is blocked has come, and was not read yet.
bool is_pending(int signal);

/// A start that was told to stop.
struct StoppedAtStart : std::runtime_error {
    StoppedAtStart() : std::runtime_error("stopped by a signal before the start was complete") {}
};

/// Throws StoppedAtStart if SIGINT or SIGTERM is pending: such a start must not end the process that it was to replace.
void check_stop_signals();

/// A signalfd(2) that is readable while one of `signals` is pending. Throws std::system_error.
Fd signal_descriptor(std::initializer_list<int> signals);

/// Reads one pending signal.
void consume_signal(int descriptor);

}  // namespace echo_server
