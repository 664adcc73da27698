// SPDX-License-Identifier: BSD-2-Clause
#include "stop_signals.h"

#include <csignal>
#include <stdexcept>

namespace {

sigset_t stop_signals() {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGINT);
    ::sigaddset(&signals, SIGTERM);
    return signals;
}

}  // namespace

void hold_back_stop_signals() {
    const auto signals = stop_signals();
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

void check_stop_signals() {
    sigset_t pending;
    ::sigpending(&pending);
    if (::sigismember(&pending, SIGINT) == 1 || ::sigismember(&pending, SIGTERM) == 1)
        throw std::runtime_error("stopped by a signal before the start was complete");
}

void release_stop_signals() {
    const auto signals = stop_signals();
    ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}
