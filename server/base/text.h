// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace echo_server {

/// `text` without white space at both ends.
std::string_view trim(std::string_view text);

/// Copies as much of `text` as fits to the beginning of `room`, safe for a terminal, a log or one line of a protocol:
/// printable ASCII stays, any other byte becomes an escape such as '\x0a'. Returns the number of bytes written, and
/// leaves in `text` what did not fit. Needs no memory.
std::size_t copy_printable(std::string_view& text, std::span<char> room) noexcept;

/// All of `text` in the same form.
std::string printable(std::string_view text);

/// `text` in single quotes, printable, and cut if it is long.
std::string quote(std::string_view text);

/// What to do if `text` begins or ends with a quote, which no shell has removed; otherwise "".
std::string_view hint_of_quotes(std::string_view text);

/// "1 port", "2 ports".
std::string plural(std::size_t number, std::string_view noun);

/// The whole `text` as a decimal number without a sign, or nothing if it is not a number or is too large.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
    Number number = 0;
    // cppcheck-suppress invalidLifetime  ; no pointer outlives the call
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || stop != text.data() + text.size()) return {};
    return number;
}

}  // namespace echo_server
