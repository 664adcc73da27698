// SPDX-License-Identifier: BSD-2-Clause
#include "support/guard.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <vector>

#include "base/os.h"

namespace echo_server {
namespace {

bool has_ended(const Fd& process) {
    pollfd ended{process.get(), POLLIN, 0};
    return !process || ::poll(&ended, 1, 0) == 1;
}

// Kills the processes whose numbers come through standard input, once that ends. A pidfd means the same process for
// ever; the number of a process that has ended may become another's.
void guard() {
    std::vector<Fd> guarded;
    for (pid_t pid = 0; ::read(STDIN_FILENO, &pid, sizeof(pid)) == sizeof(pid);) {
        std::erase_if(guarded, has_ended);  // descriptors are limited
        guarded.emplace_back(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    }
    for (const auto& process : guarded)
        if (process) ::syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
}

// Returns the pipe to the guard's standard input, which ends with this process.
Fd start_guard() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const Fd out(ends[0]);
    Fd in(ends[1]);
    const auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid > 0) return in;
    ::setsid();  // a Ctrl-C is for the tests; the guard's work begins then
    ::dup2(out.get(), STDIN_FILENO);
    ::close_range(STDIN_FILENO + 1, ~0U, 0);  // no namespace, and no pipe of a test, stays open because of the guard
    guard();
    ::_exit(0);
}

}  // namespace

void kill_at_our_end(pid_t pid) {
    static const Fd pids = start_guard();
    REQUIRE(::write(pids.get(), &pid, sizeof(pid)) == sizeof(pid));
}

}  // namespace echo_server
