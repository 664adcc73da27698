// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace echo_server {

/// Ports from `first` to `last`, both included.
struct PortRange {
    std::uint16_t first = 0;
    std::uint16_t last = 0;
};

/// "7", or "1000-2000".
std::string to_string(const PortRange& range);

/// Reads the same, with blanks wherever; `first` may be larger than `last`. Nothing if it is something else.
std::optional<PortRange> parse_range(std::string_view text, char separator = '-');

/// How many ranges of ports a line shows before it only counts the rest.
constexpr std::size_t ranges_in_a_line = 16;

/// Why a range leaves out ports, as the log and 'status' say it.
constexpr auto who_listens = "another program listens";
constexpr auto whose_ports = "the host's own ports";

/// A set of TCP ports, 0 to 65535. (No list names port 0, but a map that others write may have it.)
class PortSet {
 public:
    /// Adds every port from `first` to `last`, both included.
    void insert(std::uint16_t first, std::uint16_t last);
    void insert(std::uint16_t port) { bits().set(port); }

    [[nodiscard]] bool contains(std::uint16_t port) const { return bits().test(port); }
    [[nodiscard]] std::size_t size() const { return bits().count(); }
    [[nodiscard]] bool empty() const { return bits().none(); }

    /// All ports, ascending.
    [[nodiscard]] std::vector<std::uint16_t> to_vector() const;

    /// All ports, ascending, as in "7,77,1000-2000"; "none" for the empty set. Past `max_ranges` pieces the rest is a
    /// count of ports, as in "7,77 and 1001 more".
    [[nodiscard]] std::string to_string(std::size_t max_ranges = std::numeric_limits<std::size_t>::max()) const;

    friend PortSet operator|(PortSet a, const PortSet& b) {
        a.bits() |= b.bits();
        return a;
    }
    friend PortSet operator-(PortSet a, const PortSet& b) {
        (a.bits().flip() |= b.bits()).flip();
        return a;
    }
    friend PortSet operator&(const PortSet& a, const PortSet& b) { return a - (a - b); }
    friend bool operator==(const PortSet&, const PortSet&) = default;

 private:
    using Bits = std::bitset<65536>;
    Bits& bits() { return bits_.front(); }
    [[nodiscard]] const Bits& bits() const { return bits_.front(); }

    std::vector<Bits> bits_ = std::vector<Bits>(1);  // one: 8 KiB for each set would fill a stack
};

/// A port list as users write it: "7, 77, 1000-2000, !1022". An exclusion wins over every inclusion, wherever either
/// stands, so lists can be merged in any order.
class PortList {
 public:
    /// Adds the pieces of one line: commas stand between them, and blanks may. Throws std::runtime_error, which quotes
    /// the first wrong piece and says what is allowed; the pieces before it are added then.
    void add(std::string_view line);
    void add(const PortList& other);

    /// True until something is added, even an exclusion.
    [[nodiscard]] bool empty() const { return named_.empty() && ranges_.empty() && excluded_.empty(); }
    /// All that it lists.
    [[nodiscard]] PortSet ports() const;

    /// The pieces without a dash, less the exclusions.
    [[nodiscard]] PortSet named() const { return named_ - excluded_; }
    /// The pieces with a dash: "7-7" is a range too.
    [[nodiscard]] const std::vector<PortRange>& ranges() const { return ranges_; }
    [[nodiscard]] const PortSet& excluded() const { return excluded_; }

 private:
    PortSet named_;
    std::vector<PortRange> ranges_;
    PortSet excluded_;
};

}  // namespace echo_server
