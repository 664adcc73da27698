// SPDX-License-Identifier: BSD-2-Clause
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <span>

#include "base/fd.h"
#include "base/text.h"

namespace echo_server {
namespace {

// A reader that stalls (a pager, a stopped terminal) must not stall the server: the reader misses lines instead.
void write_if_there_is_room(int fd, std::string_view line) {
    if (::send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK) return;
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return;
    [[maybe_unused]] const auto written = ::write(fd, line.data(), line.size());
}

// One write for each line keeps lines whole where several processes share the output.
void write_line(int fd, std::string_view prefix, std::string_view line) {
    // POLLOUT promises room for so many bytes in a pipe, and only so many are written all or not at all.
    std::array<char, PIPE_BUF> room;
    constexpr std::string_view cut_off = "... (cut off)\n";
    auto size = prefix.copy(room.data(), prefix.size());
    size += copy_printable(line, std::span(room).subspan(size, room.size() - size - cut_off.size()));
    const std::string_view end = line.empty() ? "\n" : cut_off;
    size += end.copy(&room[size], end.size());
    write_if_there_is_room(fd, {room.data(), size});
}

// $JOURNAL_STREAM is "DEVICE:INODE" of the stream that leads to the journal. The environment is inherited, the stream
// perhaps not: so compare.
bool is_journal(int fd) noexcept {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat file{};
    if (stream == nullptr || ::fstat(fd, &file) != 0) return false;
    char* end = nullptr;
    if (std::strtoull(stream, &end, 10) != file.st_dev || *end != ':') return false;
    return std::strtoull(end + 1, &end, 10) == file.st_ino && *end == '\0';
}

void log_problem(std::string_view priority, std::string_view line) noexcept {
    write_line(STDERR_FILENO, is_journal(STDERR_FILENO) ? priority : "echo-server: ", line);
}

}  // namespace

// On a terminal POLLOUT does not promise room for a line, and on a pipe another writer may be faster. O_NONBLOCK
// would help, but all processes with the same open file share it, for example the parent. So open the file once more.
void keep_log_from_blocking() {
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
        struct stat file{};
        if (::fstat(stream, &file) != 0 || (!S_ISFIFO(file.st_mode) && ::isatty(stream) == 0)) continue;
        const auto path = fmt::format("/proc/self/fd/{}", stream);
        // Where that is refused, for example by the terminal of another user, the log stays where it is.
        const Fd own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        if (own) ::dup2(own.get(), stream);
    }
}

void log_line(std::string_view line) noexcept { write_line(STDOUT_FILENO, "", line); }

void log_text(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        log_line(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

void log_error(std::string_view line) noexcept { log_problem(SD_ERR, line); }

void log_warning(std::string_view line) noexcept { log_problem(SD_WARNING, line); }

bool logs_to_journal() noexcept { return is_journal(STDOUT_FILENO); }

bool Warnings::is_due() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return false;
    next_ = now + std::chrono::seconds(1);
    return true;
}

}  // namespace echo_server
