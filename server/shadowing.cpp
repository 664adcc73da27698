// SPDX-License-Identifier: BSD-2-Clause
#include "shadowing.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "text.h"

namespace {

namespace fs = std::filesystem;

bool overlap(const ListeningSocket& socket, const AddressPrefix& prefix) {
    auto address = socket.local.address();
    if (address.is_v6() && address.to_v6().is_v4_mapped())
        address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
    const bool everywhere = address.is_unspecified();
    return everywhere ? prefix.address.is_v4() == address.is_v4() || (address.is_v6() && socket.both_families)
                      : prefix.contains(address);
}

// Of what a process may have chosen itself.
std::string first_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return printable(line);
}

using Names = std::map<std::uint32_t, std::set<std::string>>;

// Adds the process at `folder`, /proc/PID, to the names of those of the sockets in `names` that it holds.
void add_owner(const fs::path& folder, Names& names) {
    std::error_code error;
    for (fs::directory_iterator entry(folder / "fd", error), end; !error && entry != end; entry.increment(error)) {
        std::error_code gone;
        const auto target = fs::read_symlink(entry->path(), gone).string();
        for (auto& [inode, owners] : names)
            if (target == fmt::format("socket:[{}]", inode)) owners.insert(first_line(folder / "comm"));
    }
}

// "22 (sshd), 80 (nginx), 443"
std::string describe_owners(const std::vector<ListeningSocket>& sockets) {
    Names names;
    for (const auto& socket : sockets) names[socket.inode];
    std::error_code error;
    for (fs::directory_iterator entry("/proc", error), end; !error && entry != end; entry.increment(error))
        if (entry->path().filename().string().find_first_not_of("0123456789") == std::string::npos)
            add_owner(entry->path(), names);

    std::map<std::uint16_t, std::set<std::string>> ports;
    for (const auto& socket : sockets) ports[socket.local.port()].merge(names[socket.inode]);
    constexpr std::size_t most = 16;
    std::vector<std::string> pieces;
    for (const auto& [port, owners] : ports) {
        if (pieces.size() == most) return fmt::format("{} and {} more", fmt::join(pieces, ", "), ports.size() - most);
        pieces.push_back(owners.empty() ? fmt::format("{}", port)
                                        : fmt::format("{} ({})", port, fmt::join(owners, ", ")));
    }
    return fmt::format("{}", fmt::join(pieces, ", "));
}

PortSet ports_of(const std::vector<ListeningSocket>& sockets) {
    PortSet ports;
    for (const auto& socket : sockets) ports.insert(socket.local.port());
    return ports;
}

// "!22,!80-81"
std::string exclusions(const PortSet& ports) {
    std::string list(1, '!');
    for (const char c : ports.to_string()) {
        list += c;
        if (c == ',') list += '!';
    }
    return list;
}

}  // namespace

std::vector<ListeningSocket> shadowed(const std::vector<ListeningSocket>& sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own) {
    std::vector<ListeningSocket> found;
    std::copy_if(sockets.begin(), sockets.end(), std::back_inserter(found), [&](const ListeningSocket& socket) {
        return socket.cookie != own && ports.contains(socket.local.port()) &&
               (addresses.empty() || std::any_of(addresses.begin(), addresses.end(),
                                                 [&](const auto& prefix) { return overlap(socket, prefix); }));
    });
    return found;
}

std::string explain_refusal(const std::vector<ListeningSocket>& sockets) {
    const auto ports = ports_of(sockets);
    const auto* text = ports.size() == 1
                           ? "port {} is already served by another socket: leave it out ('{}'), or pass "
                             "--shadow-listeners to take its new connections"
                           : "ports {} are already served by other sockets: leave them out ('{}'), or pass "
                             "--shadow-listeners to take their new connections";
    return fmt::format(fmt::runtime(text), describe_owners(sockets), exclusions(ports));
}

std::string explain_shadowing(const std::vector<ListeningSocket>& sockets) {
    const auto* text =
        ports_of(sockets).size() == 1
            ? "--shadow-listeners: new connections to port {} are taken from the socket that listens there"
            : "--shadow-listeners: new connections to ports {} are taken from the sockets that listen "
              "there";
    return fmt::format(fmt::runtime(text), describe_owners(sockets));
}
