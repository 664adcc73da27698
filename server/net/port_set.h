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

/// Parses the same, with or without blanks around the numbers; `first` may be larger. Nothing if it is something else.
std::optional<PortRange> parse_range(std::string_view text, char separator = '-');

/// A line shows at most this number of port ranges, and then the number of other ports.
constexpr std::size_t ranges_in_a_line = 16;

/// Why a range leaves out ports: words for the log and 'status'.
constexpr auto who_listens = "another program listens";
constexpr auto whose_ports = "the host's own ports";

/// A set of TCP ports, 0 to 65535. Port lists never have port 0, but a map that another program writes may.
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

    /// All ports, ascending, as in "7,77,1000-2000", or "none". After `max_ranges` ports and ranges, the rest becomes a
    /// number of ports, as in "7,77 and 1001 more".
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

    std::vector<Bits> bits_ = std::vector<Bits>(1);  // one element, on the heap: 8 KiB each would fill a stack
};

/// A port list as users write it: "7, 77, 1000-2000, !1022". Exclusions win over inclusions, whatever the order, so
/// lists can be merged in any order.
class PortList {
 public:
    /// Adds the pieces of one line, which are separated by commas, with or without blanks. At the first wrong piece it
    /// throws a std::runtime_error that quotes it and says what is allowed; the pieces before it stay added.
    void add(std::string_view line);
    void add(const PortList& other);

    /// True if nothing was added. False even if only exclusions were.
    [[nodiscard]] bool empty() const { return named_.empty() && ranges_.empty() && excluded_.empty(); }
    /// All ports of the list, less the exclusions.
    [[nodiscard]] PortSet ports() const;

    /// The pieces without a dash, less the exclusions.
    [[nodiscard]] PortSet named() const { return named_ - excluded_; }
    /// The pieces with a dash, even "7-7".
    [[nodiscard]] const std::vector<PortRange>& ranges() const { return ranges_; }
    [[nodiscard]] const PortSet& excluded() const { return excluded_; }

 private:
    PortSet named_;
    std::vector<PortRange> ranges_;
    PortSet excluded_;
};

}  // namespace echo_server
