// SPDX-License-Identifier: BSD-2-Clause
#include "port_set.h"

#include <fmt/format.h>

#include <optional>

#include "text.h"

namespace {

struct Range {
    std::uint16_t first;
    std::uint16_t last;
};

std::vector<Range> ranges_of(const std::vector<std::uint16_t>& ports) {
    std::vector<Range> ranges;
    for (const auto port : ports) {
        if (!ranges.empty() && ranges.back().last + 1 == port)
            ranges.back().last = port;
        else
            ranges.push_back({port, port});
    }
    return ranges;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
    const auto port = parse_number<std::uint16_t>(trim(text));
    return port == 0 ? std::nullopt : port;
}

std::optional<Range> parse_range(std::string_view text) {
    const auto dash = text.find('-');
    const auto first = parse_port(text.substr(0, dash));
    const auto last = dash == std::string_view::npos ? first : parse_port(text.substr(dash + 1));
    if (!first || !last) return {};
    return Range{*first, *last};
}

}  // namespace

void PortSet::insert(std::uint16_t first, std::uint16_t last) {
    for (std::uint32_t port = first; port <= last; ++port) ports_.set(port);
}

std::vector<std::uint16_t> PortSet::to_vector() const {
    std::vector<std::uint16_t> ports;
    ports.reserve(size());
    for (std::uint32_t port = 0; port < ports_.size(); ++port)
        if (ports_.test(port)) ports.push_back(static_cast<std::uint16_t>(port));
    return ports;
}

std::string PortSet::to_string(std::size_t max_ranges) const {
    if (empty()) return "none";
    std::string text;
    std::size_t left = size();
    for (const auto& [first, last] : ranges_of(to_vector())) {
        if (max_ranges-- == 0) return text + fmt::format(" and {} more", left);
        if (!text.empty()) text += ',';
        text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
        left -= last - first + 1U;
    }
    return text;
}

PortSet& PortSet::operator|=(const PortSet& other) {
    ports_ |= other.ports_;
    return *this;
}

PortSet operator-(PortSet a, const PortSet& b) {
    a.ports_ &= ~b.ports_;
    return a;
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
