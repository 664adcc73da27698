// SPDX-License-Identifier: BSD-2-Clause
#include "log.h"

#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>

namespace {

iovec part(std::string_view text) { return {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}; }

// Not within a character of UTF-8.
std::string_view cut_at(std::string_view text, std::size_t size) {
    while (size > 0 && (static_cast<unsigned char>(text[size]) & 0xc0U) == 0x80U) --size;
    return text.substr(0, size);
}

void write_line(int fd, std::string_view prefix, std::string_view line) {
    // A reader that stalls (a pager, a stopped terminal) must not stall the server: it misses lines instead.
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return;
    // POLLOUT promises a pipe room for that much and no more.
    constexpr std::string_view newline = "\n";
    constexpr std::string_view cut_off = "... (cut off)\n";
    std::string_view end = newline;
    if (prefix.size() + line.size() + newline.size() > PIPE_BUF) {
        end = cut_off;
        line = cut_at(line, PIPE_BUF - prefix.size() - cut_off.size());
    }
    // One write a line keeps lines whole where several processes share the output.
    const std::array parts{part(prefix), part(line), part(end)};
    [[maybe_unused]] const auto written = ::writev(fd, parts.data(), parts.size());
}

}  // namespace

void log_line(std::string_view line) noexcept { write_line(STDOUT_FILENO, "", line); }

void log_problem(std::string_view line) noexcept { write_line(STDERR_FILENO, "echo-server: ", line); }

void log_lines(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        write_line(STDERR_FILENO, "", text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

void Warnings::warn(std::string_view problem) noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    next_ = now + std::chrono::seconds(1);
    log_problem(problem);
}
