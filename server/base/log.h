// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <string_view>

namespace echo_server {

/// To be called once, before a server logs: from then on no line waits for the reader of a terminal or a pipe.
void keep_log_from_blocking();

/// Writes `line` and a newline to standard output. If the reader stalls or is gone, the line is lost: the server must
/// go on. A line of more than PIPE_BUF (4,096) bytes is cut off, and its end says so: a full pipe would block.
void log_line(std::string_view line) noexcept;

/// The same on standard error, behind "echo-server: ".
void log_problem(std::string_view line) noexcept;

/// Writes `text`, of any number of lines, to standard error in the same way.
void log_lines(std::string_view text) noexcept;

template <typename... Args>
void log_line(fmt::format_string<Args...> format, Args&&... args) {
    log_line(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

template <typename... Args>
void log_problem(fmt::format_string<Args...> format, Args&&... args) {
    log_problem(std::string_view(fmt::format(format, std::forward<Args>(args)...)));
}

/// For a problem that every connection may have.
class Warnings {
 public:
    /// Logs it, max one a second. Needs no memory.
    void warn(std::string_view problem) noexcept;

 private:
    std::chrono::steady_clock::time_point next_;
};

}  // namespace echo_server
