// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "base/fd.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/text.h"
#include "net/ephemeral_ports.h"
#include "net/sockets.h"

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
    const SightOfProcesses sight;
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

namespace {

// Every port on a line of its own, with a comment behind it, fits.
constexpr off_t max_size = 4 << 20;

[[noreturn]] void fail_to_read(const std::string& path, std::string_view why) {
    throw std::runtime_error(fmt::format("reading ports file {}: {}", path, why));
}

std::string read_whole(const std::string& path) {
    // The path may lead to a FIFO or a terminal: open neither waits nor takes it over.
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat before{};
    if (!file || ::fstat(file.get(), &before) != 0) fail_to_read(path, error_text(errno));
    if (S_ISDIR(before.st_mode)) fail_to_read(path, error_text(EISDIR));
    if (!S_ISREG(before.st_mode)) fail_to_read(path, "it is not a regular file, so it can't be read again on SIGHUP");
    if (before.st_size > max_size) fail_to_read(path, fmt::format("it is larger than {} MiB", max_size >> 20));

    std::string text(static_cast<std::size_t>(before.st_size) + 1, '\0');  // one more, to notice an end that moved
    std::size_t size = 0;
    while (size < text.size()) {
        const auto count = ::read(file.get(), text.data() + size, text.size() - size);
        if (count < 0 && errno != EINTR) fail_to_read(path, error_text(errno));
        if (count == 0) break;
        if (count > 0) size += static_cast<std::size_t>(count);
    }
    text.resize(size);
    // A half of the new list would close ports.
    struct stat now{};
    if (::fstat(file.get(), &now) != 0 || now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != before.st_mtim.tv_nsec || std::cmp_not_equal(size, before.st_size))
        fail_to_read(path, "it changed while it was read: try again once it is complete");
    return text;
}

}  // namespace

PortList read_ports_file(const std::string& path) { return parse_ports_file(read_whole(path), path); }

PortList parse_ports_file(std::string_view text, const std::string& path) {
    constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";  // Windows editors write it
    if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
    PortList list;
    int number = 0;
    for (std::size_t start = 0; start < text.size();) {
        const auto end = text.find('\n', start);
        auto line = text.substr(start, end - start);
        start = end == std::string::npos ? text.size() : end + 1;
        ++number;

        line = trim(line.substr(0, line.find('#')));
        if (line.empty()) continue;
        try {
            list.add(line);
        } catch (const PortListError& error) {
            throw std::runtime_error(fmt::format("{}:{}: {}", path, number, error.what()));
        }
    }
    if (list.empty()) fail_to_read(path, "it lists no ports; write at least one, such as 7");
    return list;
}

namespace {

PortSet wanted_ports(const Options& options) {
    PortList list = options.ports;
    if (options.ports_file) list.add(read_ports_file(*options.ports_file));
    PortSet ports = list.ports();
    if (ports.empty())
        throw std::runtime_error(
            fmt::format("reading ports file {}: after the exclusions no port is left", *options.ports_file));
    if (!options.allow_ephemeral) check_ephemeral_ports(ports);
    return ports;
}

// Throws if another socket listens on one of `ports`, unless --shadow-listeners allows it. Returns warnings.
std::vector<std::string> check_listeners(const Options& options, const PortSet& ports, std::uint64_t listener_cookie) {
    std::vector<ListeningSocket> others;
    try {
        others = shadowed(listening_sockets(), ports, options.addresses, listener_cookie);
    } catch (const std::runtime_error& error) {
        if (options.shadow_listeners) return {fmt::format("{}; ports may be taken from other listeners", error.what())};
        throw std::runtime_error(
            fmt::format("{}. --shadow-listeners starts without knowing whom a port is taken from", error.what()));
    }
    if (others.empty()) return {};
    if (!options.shadow_listeners) throw std::runtime_error(explain_refusal(others));
    return {explain_shadowing(others)};
}

}  // namespace

std::string describe_open(const PortSet& ports) {
    return fmt::format("{} open: {}", plural(ports.size(), "TCP port"), ports.to_string(ranges_in_a_line));
}

std::string describe_status(const PortSet& ports, const std::string& failure) {
    return failure.empty() ? describe_open(ports)
                           : fmt::format("{}; the last reload failed: {}", describe_open(ports), failure);
}

PortPlan plan_ports(const Options& options, const PortSet& open, std::uint64_t listener_cookie) {
    PortPlan plan{.ports = wanted_ports(options), .warnings = {}};
    plan.warnings = check_listeners(options, plan.ports - open, listener_cookie);
    return plan;
}

}  // namespace echo_server
