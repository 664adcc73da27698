// SPDX-License-Identifier: BSD-2-Clause
#include "log.h"

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>

namespace {

iovec part(std::string_view text) { return {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}; }

void write_line(int fd, std::string_view prefix, std::string_view line) {
    // A reader that stalls (a pager, a stopped terminal) must not stall the server: it misses lines instead.
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return;
    // One write a line keeps lines whole where several processes share the output.
    const std::array parts{part(prefix), part(line), part("\n")};
    [[maybe_unused]] const auto written = ::writev(fd, parts.data(), parts.size());
}

}  // namespace

void log_line(std::string_view line) noexcept { write_line(STDOUT_FILENO, "", line); }

void log_problem(std::string_view line) noexcept { write_line(STDERR_FILENO, "echo-server: ", line); }

void Warnings::warn(std::string_view problem) noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::seconds(1);
    log_problem(problem);
}
