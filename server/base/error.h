// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cerrno>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace echo_server {

/// A system call that failed. what() is "WHAT: the system's words for `error`; HINT".
class SystemError : public std::system_error {
 public:
    SystemError(std::string_view what, int error, std::string_view hint);
    [[nodiscard]] const char* what() const noexcept override { return text_.what(); }

 private:
    std::runtime_error text_;  // not a string, whose copy can throw
};

/// Throws SystemError. `what` says what was tried, on what; `hint`, if there is one, says what to do.
[[noreturn]] void fail(std::string_view what, int error = errno, std::string_view hint = {});

/// The system's words for `error`, an errno. Needs no memory.
const char* error_text(int error) noexcept;

}  // namespace echo_server
