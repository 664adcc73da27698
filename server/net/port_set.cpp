// SPDX-License-Identifier: BSD-2-Clause
#include "net/port_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "base/text.h"

namespace echo_server {
namespace {

// What to write instead of a wrong piece.
std::string_view hint_of_piece(std::string_view piece) {
    // Word processors replace '-' by longer dashes.
    const auto is_ascii = [](unsigned char c) { return c < 128; };
    if (!std::ranges::all_of(piece, is_ascii)) return "it has a character that is not ASCII: write '-' for a dash";
    if (const auto hint = hint_of_quotes(piece); !hint.empty()) return hint;
    return "write ports (7), ranges (1000-2000) and exclusions (!22) from 1 to 65535, with commas between them";
}

}  // namespace

std::string to_string(const PortRange& range) {
    return range.first == range.last ? fmt::format("{}", range.first) : fmt::format("{}-{}", range.first, range.last);
}

std::optional<PortRange> parse_range(std::string_view text, char separator) {
    const auto dash = text.find(separator);
    const auto first = parse_number<std::uint16_t>(trim(text.substr(0, dash)));
    const auto last = dash == std::string_view::npos ? first : parse_number<std::uint16_t>(trim(text.substr(dash + 1)));
    if (!first || !last) return {};
    return PortRange{*first, *last};
}

void PortSet::insert(std::uint16_t first, std::uint16_t last) {
    // Uses shifts: a loop over the ports would take half a minute for a file with a long range on each line.
    if (first <= last) bits() |= ~Bits() >> (65535U - last + first) << first;
}

std::vector<std::uint16_t> PortSet::to_vector() const {
    std::vector<std::uint16_t> ports;
    ports.reserve(size());
    for (std::size_t port = 0; port < bits().size(); ++port)
        if (bits()[port]) ports.push_back(static_cast<std::uint16_t>(port));
    return ports;
}

std::string PortSet::to_string(std::size_t max_ranges) const {
    if (empty()) return "none";
    std::string text;
    std::size_t left = size();
    for (std::size_t port = 0; left > 0; ++port) {
        if (!bits()[port]) continue;
        const std::size_t first = port;
        while (port + 1 < bits().size() && bits()[port + 1]) ++port;
        if (max_ranges-- == 0) return text + fmt::format(" and {} more", left);
        if (!text.empty()) text += ',';
        text += echo_server::to_string({static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(port)});
        left -= port - first + 1;
    }
    return text;
}

void PortList::add(std::string_view line) {
    for (std::size_t start = 0, comma = 0; comma != std::string_view::npos; start = comma + 1) {
        comma = line.find(',', start);
        const auto piece = trim(line.substr(start, comma - start));
        const bool exclusion = piece.starts_with('!');
        const auto range = parse_range(piece.substr(exclusion ? 1 : 0));
        if (!range || range->first == 0 || range->last == 0) {
            const bool has_comma = line.find(',') != std::string_view::npos;
            const auto what = !piece.empty() ? quote(piece) + " is not allowed here"
                              : has_comma    ? quote(line) + " has two commas in a row, or a comma at an end"
                                             : "the port list is empty";
            throw std::runtime_error(fmt::format("{}: {}", what, hint_of_piece(piece)));
        }
        if (range->last < range->first)
            throw std::runtime_error(
                fmt::format("{} runs backwards: write {}-{}", quote(piece), range->last, range->first));
        if (exclusion)
            excluded_.insert(range->first, range->last);
        else if (piece.find('-') == std::string_view::npos)
            named_.insert(range->first);
        else
            ranges_.push_back(*range);
    }
}

void PortList::add(const PortList& other) {
    named_ = named_ | other.named_;
    ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
    excluded_ = excluded_ | other.excluded_;
}

PortSet PortList::ports() const {
    PortSet ports = named_;
    for (const auto& [first, last] : ranges_) ports.insert(first, last);
    return ports - excluded_;
}

}  // namespace echo_server
