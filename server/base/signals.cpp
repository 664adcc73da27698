// SPDX-License-Identifier: BSD-2-Clause
#include "base/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "base/os.h"

namespace echo_server {
namespace {

sigset_t set_of(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) ::sigaddset(&set, signal);
    return set;
}

}  // namespace

void block_signals() {
    const auto signals = set_of({SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGTERM});
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

bool is_pending(int signal) {
    sigset_t pending;
    ::sigpending(&pending);
    return ::sigismember(&pending, signal) == 1;
}

void check_stop_signals() {
    if (is_pending(SIGINT) || is_pending(SIGTERM)) throw StoppedAtStart();
}

Fd signal_descriptor(std::initializer_list<int> signals) {
    const auto set = set_of(signals);
    Fd descriptor(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!descriptor) fail("signalfd");
    return descriptor;
}

void consume_signal(int descriptor) {
    signalfd_siginfo taken{};
    [[maybe_unused]] const auto size = ::read(descriptor, &taken, sizeof(taken));
}

}  // namespace echo_server
