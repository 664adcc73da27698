// SPDX-License-Identifier: BSD-2-Clause
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <span>

#include "base/os.h"
#include "base/text.h"

namespace echo_server {
namespace {

// Never waits for a reader that stalls (a pager, a stopped terminal): that reader misses lines instead.
void write_if_there_is_room(int fd, std::string_view line) {
    if (::send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK) return;
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return;
    [[maybe_unused]] const auto written = ::write(fd, line.data(), line.size());
}

// Compares, because a process can inherit $JOURNAL_STREAM ("DEVICE:INODE" of the journal's stream) without the stream.
bool is_journal(int fd) noexcept {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat file{};
    if (stream == nullptr || ::fstat(fd, &file) != 0) return false;
    char* end = nullptr;
    if (std::strtoull(stream, &end, 10) != file.st_dev || *end != ':') return false;
    return std::strtoull(end + 1, &end, 10) == file.st_ino && *end == '\0';
}

}  // namespace

// Opens the files again with O_NONBLOCK, because poll() is not enough: on a terminal POLLOUT does not promise room for
// a line, and on a pipe another writer may be faster. Set on the old files, O_NONBLOCK would also apply to the parent.
void keep_log_from_blocking() {
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
        struct stat file{};
        if (::fstat(stream, &file) != 0 || (!S_ISFIFO(file.st_mode) && ::isatty(stream) == 0)) continue;
        const auto path = fmt::format("/proc/self/fd/{}", stream);
        // If this fails, for example because the terminal belongs to another user, the old file stays in use.
        const Fd own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
        if (own) ::dup2(own.get(), stream);
    }
}

// One write for each line keeps lines whole where several processes share the output.
void Log::operator()(std::string_view line) const noexcept {
    // POLLOUT on a pipe promises room for PIPE_BUF bytes. A longer write may block, or write only a part.
    std::array<char, PIPE_BUF> room;
    constexpr std::string_view cut_off = "... (cut off)\n";
    const auto start = is_journal(stream) ? priority : prefix;
    auto size = start.copy(room.data(), start.size());
    size += copy_printable(line, std::span(room).subspan(size, room.size() - size - cut_off.size()));
    const std::string_view end = line.empty() ? "\n" : cut_off;
    size += end.copy(&room[size], end.size());
    write_if_there_is_room(stream, {room.data(), size});
}

void log_text(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        log_line(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

bool logs_to_journal() noexcept { return is_journal(STDOUT_FILENO); }

}  // namespace echo_server
