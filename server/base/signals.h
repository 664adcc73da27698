// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <initializer_list>

#include "base/fd.h"

namespace echo_server {

// SIGHUP, SIGINT and SIGTERM interrupt nothing: they wait until they are read from a descriptor, which takes its turn like
// any other. Of each at most one waits, so a storm of them is one reload after the other with time for clients in between.

/// From now on they wait, for the calling thread and those that it starts.
void block_signals();

/// Throws std::runtime_error if SIGINT or SIGTERM waits: a start that was told to stop must not go on to end the process
/// that it was to replace.
void check_stop_signals();

/// A signalfd(2), readable while one of `signals` waits. Throws std::system_error.
Fd signal_descriptor(std::initializer_list<int> signals);

/// Takes the one that waits.
void consume_signal(int descriptor);

}  // namespace echo_server
