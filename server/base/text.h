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

/// Copies `text`, as far as it fits, to the beginning of `room`, for a terminal, a log or one line of a protocol:
/// in ASCII that can be printed; any other byte becomes '\x0a'. Returns the number of bytes written, and leaves in
/// `text` what did not fit. Needs no memory.
std::size_t copy_printable(std::string_view& text, std::span<char> room) noexcept;

/// All of `text` in the same form.
std::string printable(std::string_view text);

/// `text` in single quotes, printable, and cut if it is long.
std::string quote(std::string_view text);

/// If `text` begins or ends with a quote, which nobody has removed: what to do. Otherwise "".
std::string_view hint_of_quotes(std::string_view text);

/// "1 port", "2 ports".
std::string plural(std::size_t number, std::string_view noun);

/// The whole of `text` as a decimal number without a sign; nothing if it is not a number or too large.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
    Number number = 0;
    // cppcheck-suppress invalidLifetime  ; no pointer outlives the call
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc{} || stop != text.data() + text.size()) return {};
    return number;
}

}  // namespace echo_server
