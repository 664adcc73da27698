// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <fmt/format.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <string_view>
#include <utility>

namespace echo_server {

/// After this call no log line waits for the reader of a terminal or a pipe. To be called once, before a server logs.
void keep_log_from_blocking();

/// Writes a line to a standard stream, in one piece, in the form of copy_printable() in text.h. If the reader stalls or
/// is gone, the line is lost, because the server must go on. A line that would have more than PIPE_BUF (4,096) bytes
/// ends with "... (cut off)", because a longer write to a pipe could block.
struct Log {
    /// Takes nothing from the heap.
    void operator()(std::string_view line) const noexcept;

    template <typename... Args>
    void operator()(fmt::format_string<Args...> format, Args&&... args) const {
        (*this)(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
    }

    int stream;
    std::string_view prefix;
    std::string_view priority;  ///< of sd-daemon(3); replaces the prefix if the stream leads to the journal
};
constexpr Log log_line{.stream = STDOUT_FILENO, .prefix = "", .priority = ""};
/// For what failed.
constexpr Log log_error{.stream = STDERR_FILENO, .prefix = "echo-server: ", .priority = SD_ERR};
/// For what may cause a failure later.
constexpr Log log_warning{.stream = STDERR_FILENO, .prefix = "echo-server: ", .priority = SD_WARNING};

/// log_line() for each line of `text`. Takes nothing from the heap.
void log_text(std::string_view text) noexcept;

/// Whether log_line() writes to the journal of systemd ($JOURNAL_STREAM in systemd.exec(5)). The journal adds the name,
/// the process and the time to each line.
bool logs_to_journal() noexcept;

/// For a problem that every connection may have, and that could flood the log.
class Warnings {
 public:
    /// Logs at most one problem a second, and at most 256 characters of it. Takes nothing from the heap, because the
    /// problem may be that there is no memory.
    template <typename... Args>
    // NOLINTNEXTLINE(bugprone-exception-escape)  fmt throws only for a wrong format, and the compiler checks this one
    void warn(fmt::format_string<Args...> format, Args&&... args) noexcept {
        const auto now = std::chrono::steady_clock::now();
        if (now < next_) return;
        next_ = now + std::chrono::seconds(1);
        std::array<char, 256> line;
        const auto [end, size] = fmt::format_to_n(line.data(), line.size(), format, std::forward<Args>(args)...);
        log_warning(std::string_view(line.data(), end));
    }

 private:
    std::chrono::steady_clock::time_point next_;
};

}  // namespace echo_server
