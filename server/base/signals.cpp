// SPDX-License-Identifier: BSD-2-Clause
#include "base/signals.h"

#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"

namespace echo_server {
namespace {

sigset_t set_of(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) ::sigaddset(&set, signal);
    return set;
}

// Destructors would wait for what hangs.
[[noreturn]] void end_start() {
    log_error("stopped by a signal before the start was complete");
    ::_exit(1);
}

void wait_for_stop() {
    const auto stops = set_of({SIGINT, SIGTERM});
    siginfo_t taken{};
    while (::sigwaitinfo(&stops, &taken) < 0) continue;
    if (taken.si_pid != ::getpid()) end_start();  // else it is the destructor's
}

}  // namespace

void block_signals() {
    const auto signals = set_of({SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGTERM});
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

StopsStart::StopsStart() : thread_(start_thread(wait_for_stop)) {}

StopsStart::~StopsStart() {
    ::pthread_kill(thread_.native_handle(), SIGINT);
    thread_.join();
}

void start_is_complete() {
    sigset_t pending;
    ::sigpending(&pending);
    if (::sigismember(&pending, SIGINT) == 1 || ::sigismember(&pending, SIGTERM) == 1) end_start();
}

Fd signal_descriptor(std::initializer_list<int> signals) {
    const auto set = set_of(signals);
    return checked(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd");
}

sigset_t take_signals(int descriptor) {
    auto set = set_of({});
    signalfd_siginfo taken{};
    // A few: in a storm one can come again while the others are taken.
    for (int left = 8; left > 0 && ::read(descriptor, &taken, sizeof(taken)) == sizeof(taken); --left)
        ::sigaddset(&set, static_cast<int>(taken.ssi_signo));
    return set;
}

}  // namespace echo_server
