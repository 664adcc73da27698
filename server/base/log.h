// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <string_view>
#include <utility>

namespace echo_server {

/// To be called once, before a server logs: from then on no line waits for the reader of a terminal or a pipe.
void keep_log_from_blocking();

/// Writes `line` and a newline to standard output, in one piece, as copy_printable() in text.h shows it. If the reader
/// stalls or is gone, the line is lost: the server must go on. A line that would have more than PIPE_BUF (4,096) bytes
/// is cut off, and its end says so: a full pipe would block. Takes nothing from the heap.
void log_line(std::string_view line) noexcept;

/// The same for each line of `text`.
void log_text(std::string_view text) noexcept;

/// The same on standard error, behind "echo-server: ", or for the journal behind the priority of sd-daemon(3). An error
/// says that something was not done; a warning, what may harm later.
void log_error(std::string_view line) noexcept;
void log_warning(std::string_view line) noexcept;

/// Whether log_line() writes to the journal of systemd ($JOURNAL_STREAM in systemd.exec(5)), which knows the name, the
/// process and the time of each line.
bool logs_to_journal() noexcept;

template <typename... Args>
void log_line(fmt::format_string<Args...> format, Args&&... args) {
    log_line(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
    log_error(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
    log_warning(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

/// For a problem that every connection may have.
class Warnings {
 public:
    /// Logs it, at most one a second. Takes nothing from the heap, because the problem may be that there is no memory.
    /// A problem of more than 256 characters is cut off.
    template <typename... Args>
    // NOLINTNEXTLINE(bugprone-exception-escape)  fmt throws at wrong formats, and the compiler checks this one
    void warn(fmt::format_string<Args...> format, Args&&... args) noexcept {
        if (!is_due()) return;
        std::array<char, 256> line;
        const auto [end, size] = fmt::format_to_n(line.data(), line.size(), format, std::forward<Args>(args)...);
        log_warning(std::string_view(line.data(), end));
    }

 private:
    bool is_due() noexcept;

    std::chrono::steady_clock::time_point next_;
};

}  // namespace echo_server
