// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <csignal>
#include <initializer_list>
#include <thread>

#include "base/os.h"

namespace echo_server {

/// Blocks SIGHUP, SIGUSR1, SIGUSR2, SIGINT and SIGTERM in the calling thread and in threads that it starts. From then
/// on they are read from descriptors; of each the kernel keeps one.
void block_signals();

/// As long as it exists, SIGINT and SIGTERM end the process at once, with a line and exit code 1: whatever hangs in the
/// start, and also if it is process 1 of a container. (By a thread: a handler does not run while the only thread
/// waits for a dead file server, which the kernel calls TASK_KILLABLE.)
class StopsStart {
 public:
    /// To be made with signals blocked. Throws std::system_error if there can be no thread.
    StopsStart();
    ~StopsStart();

 private:
    std::thread thread_;
};

/// Ends the process in the same way if SIGINT or SIGTERM has come: such a start must not end the process that it was to
/// replace. To be called once, before the first step that can't be taken back.
void start_is_complete();

/// A signalfd(2) that is readable while one of `signals`, which are blocked, is pending. Throws std::system_error.
Fd signal_descriptor(std::initializer_list<int> signals);

/// Takes all of these that are pending. Needs no memory.
sigset_t take_signals(int descriptor);

}  // namespace echo_server
