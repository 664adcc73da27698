// SPDX-License-Identifier: BSD-2-Clause
#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
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

iovec part(std::string_view text) { return {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}; }

// A reader that stalls (a pager, a stopped terminal) must not stall the server: the reader misses lines instead.
void write_if_there_is_room(int fd, std::span<iovec> parts) {
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    if (::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0 || errno != ENOTSOCK) return;
    pollfd ready{.fd = fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) != 1) return;
    [[maybe_unused]] const auto written = ::writev(fd, parts.data(), static_cast<int>(parts.size()));
}

// A path, say, can have any characters: those that could fake a line, or steer a terminal, are not written, apart from
// those in `kept`.
void write_line(int fd, std::string_view prefix, std::string_view line, std::string_view kept = {}) {
    // POLLOUT promises room for so many bytes in a pipe, and only so many are written all or not at all.
    constexpr std::string_view newline = "\n";
    constexpr std::string_view cut_off = "... (cut off)\n";
    std::array<char, PIPE_BUF> room;
    std::string_view end = newline;
    auto rest = line;
    auto size = copy_visible(rest, std::span(room).first(PIPE_BUF - prefix.size() - end.size()), kept);
    if (!rest.empty()) {
        end = cut_off;
        size = copy_visible(line, std::span(room).first(PIPE_BUF - prefix.size() - end.size()), kept);
    }
    // One write for each line keeps lines whole where several processes share the output.
    std::array parts{part(prefix), part({room.data(), size}), part(end)};
    write_if_there_is_room(fd, parts);
}

void write_lines(int fd, std::string_view prefix, std::string_view text) {
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        write_line(fd, prefix, text.substr(0, end), "\t");  // libbpf indents by tabs
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

// On a terminal POLLOUT does not promise room for a line, and on a pipe another writer may be faster. O_NONBLOCK
// would help, but all processes with the same open file share it, for example the parent. So open the file once more.
void reopen_without_blocking(int fd) {
    struct stat file{};
    if (::fstat(fd, &file) != 0 || (!S_ISFIFO(file.st_mode) && ::isatty(fd) == 0)) return;
    const auto path = fmt::format("/proc/self/fd/{}", fd);
    // Where that is refused, for example by the terminal of another user, the log stays where it is.
    const Fd own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (own) ::dup2(own.get(), fd);
}

// $JOURNAL_STREAM is "DEVICE:INODE" of the stream that leads to the journal. The environment is inherited, the stream
// perhaps not: so compare.
bool is_journal(int fd) {
    const char* stream = std::getenv("JOURNAL_STREAM");
    struct stat file{};
    if (stream == nullptr || ::fstat(fd, &file) != 0) return false;
    char* end = nullptr;
    if (std::strtoull(stream, &end, 10) != file.st_dev || *end != ':') return false;
    return std::strtoull(end + 1, &end, 10) == file.st_ino && *end == '\0';
}

bool errors_go_to_journal() {
    static const bool answer = is_journal(STDERR_FILENO);
    return answer;
}

void log_problem(std::string_view priority, std::string_view line) {
    write_line(STDERR_FILENO, errors_go_to_journal() ? priority : "echo-server: ", line);
}

}  // namespace

void keep_log_from_blocking() {
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) reopen_without_blocking(stream);
}

void log_line(std::string_view line) noexcept { write_line(STDOUT_FILENO, "", line); }

void log_error(std::string_view line) noexcept { log_problem(SD_ERR, line); }

void log_warning(std::string_view line) noexcept { log_problem(SD_WARNING, line); }

void log_text(std::string_view text) noexcept {
    if (text.ends_with('\n')) text.remove_suffix(1);
    if (text.size() < PIPE_BUF) return write_line(STDOUT_FILENO, "", text, "\n");
    write_lines(STDOUT_FILENO, "", text);
}

void log_debug(std::string_view text) noexcept {
    write_lines(STDERR_FILENO, errors_go_to_journal() ? SD_DEBUG : "", text);
}

bool logs_to_journal() noexcept {
    static const bool answer = is_journal(STDOUT_FILENO);
    return answer;
}

bool Warnings::is_due() noexcept {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return false;
    next_ = now + std::chrono::seconds(1);
    return true;
}

}  // namespace echo_server
