// SPDX-License-Identifier: BSD-2-Clause
#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace echo_server {
namespace {

// The size of the first character, or 0 if it is a control character (C0, DEL or C1), or no UTF-8.
std::size_t size_of_visible(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const auto first = byte(0);
    if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
    const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || text.size() < size) return 0;
    for (std::size_t i = 1; i < size; ++i)
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    // What could be said in fewer bytes, surrogates, and what is beyond U+10FFFF is no UTF-8 either.
    const auto second = byte(1);
    const bool wrong = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                       (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
    const bool c1 = first == 0xc2 && second < 0xa0;
    return wrong || c1 ? 0 : size;
}

}  // namespace

std::string_view trim(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\v\f";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

std::string printable(std::string_view text) {
    std::string result;
    for (const char c : text) {
        if (c >= ' ' && c <= '~')
            result += c;
        else
            result += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    return result;
}

std::size_t copy_visible(std::string_view& text, std::span<char> room, std::string_view kept) noexcept {
    constexpr std::string_view digits = "0123456789abcdef";
    auto left = room;
    while (!text.empty()) {
        const auto byte = static_cast<unsigned char>(text.front());
        const std::array<char, 4> escaped{'\\', 'x', digits[byte >> 4U], digits[byte & 0xfU]};
        const auto size = kept.find(text.front()) != std::string_view::npos ? 1 : size_of_visible(text);
        const std::string_view shown = size > 0 ? text.substr(0, size) : std::string_view(escaped.data(), 4);
        if (shown.size() > left.size()) break;
        shown.copy(left.data(), shown.size());
        left = left.subspan(shown.size());
        text.remove_prefix(std::max<std::size_t>(size, 1));
    }
    return room.size() - left.size();
}

std::string visible(std::string_view text) {
    std::string result(4 * text.size(), '\0');
    result.resize(copy_visible(text, result));
    return result;
}

std::string quote(std::string_view text) {
    constexpr std::size_t longest = 32;
    return fmt::format("'{}{}'", printable(text.substr(0, longest)), text.size() > longest ? "..." : "");
}

std::string_view hint_of_quotes(std::string_view text) {
    constexpr std::string_view quotes = "'\"";
    const bool found =
        !text.empty() && (text.find_first_of(quotes) == 0 || text.find_last_of(quotes) == text.size() - 1);
    return found ? "no shell has removed the quotes: write no quotes, and no blanks" : "";
}

std::string plural(std::size_t number, std::string_view noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace echo_server
