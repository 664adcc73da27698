// SPDX-License-Identifier: BSD-2-Clause
#include "base/text.h"

#include <fmt/format.h>

#include <array>

namespace echo_server {

std::string_view trim(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\v\f";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::size_t copy_printable(std::string_view& text, std::span<char> room) noexcept {
    constexpr std::string_view digits = "0123456789abcdef";
    std::size_t size = 0;
    for (; !text.empty(); text.remove_prefix(1)) {
        const auto byte = static_cast<unsigned char>(text.front());
        const std::array<char, 4> escaped{'\\', 'x', digits[byte >> 4U], digits[byte & 0xfU]};
        const bool plain = byte >= ' ' && byte <= '~';
        const std::string_view shown = plain ? text.substr(0, 1) : std::string_view(escaped.data(), escaped.size());
        if (shown.size() > room.size() - size) break;
        size += shown.copy(&room[size], shown.size());
    }
    return size;
}

std::string printable(std::string_view text) {
    std::string result(4 * text.size(), '\0');
    result.resize(copy_printable(text, result));
    return result;
}

std::string quote(std::string_view text) {
    constexpr std::size_t longest = 32;
    return fmt::format("'{}{}'", printable(text.substr(0, longest)), text.size() > longest ? "..." : "");
}

std::string_view hint_of_quotes(std::string_view text) {
    const auto is_quote = [](char byte) { return byte == '\'' || byte == '"'; };
    const bool found = !text.empty() && (is_quote(text.front()) || is_quote(text.back()));
    return found ? "no shell has removed the quotes: write it without quotes and blanks" : "";
}

std::string plural(std::size_t number, std::string_view noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace echo_server
