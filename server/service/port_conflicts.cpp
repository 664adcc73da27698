// SPDX-License-Identifier: BSD-2-Clause
#include "service/port_conflicts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>

#include "base/text.h"

namespace echo_server {
namespace {

namespace fs = std::filesystem;

bool overlap(const ListeningSocket& socket, const AddressPrefix& prefix) {
    const auto address = unmapped(socket.local.address());
    const bool everywhere = address.is_unspecified();
    return everywhere ? prefix.address.is_v4() == address.is_v4() || (address.is_v6() && socket.both_families)
                      : prefix.contains(address);
}

// A process chooses its own name: make it printable.
std::string first_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return printable(line);
}

using Owners = std::set<std::string>;
using OwnersByInode = std::unordered_map<std::uint32_t, Owners>;

// A message must fit into a line of a log.
constexpr std::size_t max_pieces = 16;
constexpr std::size_t max_names = 4;

// The inode in "socket:[INODE]", the target of a socket in /proc/PID/fd.
std::optional<std::uint32_t> inode_of(std::string_view target) {
    constexpr std::string_view begin = "socket:[";
    if (!target.starts_with(begin) || !target.ends_with(']')) return {};
    return parse_number<std::uint32_t>(target.substr(begin.size(), target.size() - begin.size() - 1));
}

// Adds the process at `folder`, /proc/PID, to the owners of each socket that it has.
void add_owner(const fs::path& folder, OwnersByInode& owners) {
    std::optional<std::string> name;
    std::error_code error;
    for (fs::directory_iterator entry(folder / "fd", error), end; !error && entry != end; entry.increment(error)) {
        std::error_code gone;
        const auto inode = inode_of(fs::read_symlink(entry->path(), gone).native());
        const auto found = inode ? owners.find(*inode) : owners.end();
        if (found == owners.end()) continue;
        if (!name) name = first_line(folder / "comm");
        found->second.insert(*name);
    }
}

std::map<std::uint16_t, Owners> owners_of_ports(const std::vector<ListeningSocket>& sockets) {
    OwnersByInode owners;
    for (const auto& socket : sockets) owners[socket.inode];
    std::error_code error;
    for (fs::directory_iterator entry("/proc", error), end; !error && entry != end; entry.increment(error))
        if (entry->path().filename().string().find_first_not_of("0123456789") == std::string::npos)
            add_owner(entry->path(), owners);

    std::map<std::uint16_t, Owners> ports;
    for (const auto& socket : sockets) {
        const auto& names = owners[socket.inode];  // not moved: sockets of the kernel share inode 0
        ports[socket.local.port()].insert(names.begin(), names.end());
    }
    return ports;
}

// "80-89 (nginx)"
std::string describe(const PortRange& range, const Owners& owners) {
    if (owners.empty()) return to_string(range);
    const auto shown = std::min(owners.size(), max_names);
    const auto end = std::next(owners.begin(), static_cast<std::ptrdiff_t>(shown));
    return fmt::format("{} ({}{})", to_string(range), fmt::join(owners.begin(), end, ", "),
                       shown == owners.size() ? "" : fmt::format(" and {} more", owners.size() - shown));
}

// "22 (sshd), 80-89 (nginx), 443"
std::string describe_owners(const std::vector<ListeningSocket>& sockets) {
    const auto ports = owners_of_ports(sockets);
    std::vector<std::string> pieces;
    auto left = ports.size();
    for (auto next = ports.begin(); next != ports.end();) {
        if (pieces.size() == max_pieces) return fmt::format("{} and {} more", fmt::join(pieces, ", "), left);
        const auto& owners = next->second;
        PortRange range{next->first, next->first};
        while (++next != ports.end() && next->first == range.last + 1 && next->second == owners)
            range.last = next->first;
        pieces.push_back(describe(range, owners));
        left -= range.size();
    }
    return fmt::format("{}", fmt::join(pieces, ", "));
}

PortSet ports_of(const std::vector<ListeningSocket>& sockets) {
    PortSet ports;
    for (const auto& socket : sockets) ports.insert(socket.local.port());
    return ports;
}

// "'!22,!80-81'"
std::string exclusions(const PortSet& ports) {
    std::vector<std::string> pieces;
    auto left = ports.size();
    for (const auto& range : ports.ranges()) {
        if (pieces.size() == max_pieces) return fmt::format("'{}' and {} more", fmt::join(pieces, ","), left);
        pieces.push_back(fmt::format("!{}", to_string(range)));
        left -= range.size();
    }
    return fmt::format("'{}'", fmt::join(pieces, ","));
}

}  // namespace

std::vector<ListeningSocket> shadowed(const std::vector<ListeningSocket>& sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own) {
    std::vector<ListeningSocket> found;
    std::ranges::copy_if(sockets, std::back_inserter(found), [&](const ListeningSocket& socket) {
        return socket.cookie != own && ports.contains(socket.local.port()) &&
               (addresses.empty() ||
                std::ranges::any_of(addresses, [&](const auto& prefix) { return overlap(socket, prefix); }));
    });
    return found;
}

std::string explain_refusal(const std::vector<ListeningSocket>& sockets) {
    const auto ports = ports_of(sockets);
    const auto* text = ports.size() == 1 ? "port {} is already served by another socket: leave it out ({}), or pass "
                                           "--shadow-listeners to take its new connections"
                                         : "ports {} are already served by other sockets: leave them out ({}), or pass "
                                           "--shadow-listeners to take their new connections";
    return fmt::format(fmt::runtime(text), describe_owners(sockets), exclusions(ports));
}

std::string explain_shadowing(const std::vector<ListeningSocket>& sockets) {
    const auto* text =
        ports_of(sockets).size() == 1
            ? "--shadow-listeners: new connections to port {} are taken from the socket that listens there"
            : "--shadow-listeners: new connections to ports {} are taken from the sockets that listen there";
    return fmt::format(fmt::runtime(text), describe_owners(sockets));
}

}  // namespace echo_server
