// SPDX-License-Identifier: BSD-2-Clause
#include "net/port_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "base/text.h"

namespace echo_server {
namespace {

std::optional<std::uint16_t> parse_port(std::string_view text) {
    const auto port = parse_number<std::uint16_t>(trim(text));
    return port == 0 ? std::nullopt : port;
}

std::optional<PortRange> parse_range(std::string_view text) {
    const auto dash = text.find('-');
    const auto first = parse_port(text.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_port(text.substr(dash + 1));
    if (!first || !last) return {};
    return PortRange{*first, *last};
}

}  // namespace

void PortSet::insert(std::uint16_t first, std::uint16_t last) {
    if (first <= last) std::fill(ports_.begin() + first, ports_.begin() + last + 1, true);
}

std::size_t PortSet::size() const { return static_cast<std::size_t>(std::count(ports_.begin(), ports_.end(), true)); }

bool PortSet::empty() const { return std::find(ports_.begin(), ports_.end(), true) == ports_.end(); }

std::vector<std::uint16_t> PortSet::to_vector() const {
    std::vector<std::uint16_t> ports;
    for (const auto& [first, last] : ranges())
        for (std::uint32_t port = first; port <= last; ++port) ports.push_back(static_cast<std::uint16_t>(port));
    return ports;
}

std::vector<PortRange> PortSet::ranges() const {
    std::vector<PortRange> ranges;
    const auto port = [&](auto position) { return static_cast<std::uint16_t>(position - ports_.begin()); };
    for (auto first = std::find(ports_.begin(), ports_.end(), true); first != ports_.end();) {
        const auto end = std::find(first, ports_.end(), false);
        ranges.push_back({port(first), port(end - 1)});
        first = std::find(end, ports_.end(), true);
    }
    return ranges;
}

std::string PortSet::to_string(std::size_t max_ranges) const {
    if (empty()) return "none";
    std::string text;
    std::size_t left = size();
    for (const auto& range : ranges()) {
        if (max_ranges-- == 0) return text + fmt::format(" and {} more", left);
        if (!text.empty()) text += ',';
        text += echo_server::to_string(range);
        left -= range.size();
    }
    return text;
}

PortSet& PortSet::operator|=(const PortSet& other) {
    std::transform(ports_.begin(), ports_.end(), other.ports_.begin(), ports_.begin(), std::logical_or());
    return *this;
}

PortSet operator-(PortSet a, const PortSet& b) {
    std::transform(a.ports_.begin(), a.ports_.end(), b.ports_.begin(), a.ports_.begin(),
                   [](bool kept, bool removed) { return kept && !removed; });
    return a;
}

std::string to_string(const PortRange& range) {
    return range.first == range.last ? fmt::format("{}", range.first) : fmt::format("{}-{}", range.first, range.last);
}

void PortList::add(std::string_view line) {
    for (std::size_t start = 0, comma = 0; comma != std::string_view::npos; start = comma + 1) {
        comma = line.find(',', start);
        add_piece(trim(line.substr(start, comma - start)));
    }
}

void PortList::add(const PortList& other) {
    included_ |= other.included_;
    excluded_ |= other.excluded_;
}

void PortList::add_piece(std::string_view piece) {
    const bool exclusion = piece.starts_with('!');
    const auto range = parse_range(piece.substr(exclusion ? 1 : 0));
    if (range && range->last < range->first)
        throw PortListError(fmt::format("{} runs backwards: write {}-{}", quote(piece), range->last, range->first));
    if (!range)
        throw PortListError(
            fmt::format("{} is not allowed here: write ports (7), ranges (1000-2000) and exclusions (!22) "
                        "from 1 to 65535, with commas between them",
                        piece.empty() ? "an empty piece" : quote(piece)));
    (exclusion ? excluded_ : included_).insert(range->first, range->last);
}

}  // namespace echo_server
