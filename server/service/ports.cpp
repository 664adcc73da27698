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
#include <set>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/text.h"

namespace echo_server {

namespace {

namespace fs = std::filesystem;

bool overlap(const ListeningSocket& socket, const AddressPrefix& prefix) {
    const auto address = unmapped(socket.local.address());
    if (!address.is_unspecified()) return prefix.contains(address);
    return prefix.address.is_v4() == address.is_v4() || (address.is_v6() && socket.both_families);
}

using PortsByInode = std::unordered_multimap<std::uint32_t, std::uint16_t>;  // sockets of the kernel share inode 0
using Owners = std::set<std::string>;

// Adds the process at `folder`, /proc/PID, to the owners of each port that it has.
void add_process(const fs::path& folder, const PortsByInode& ports, std::map<std::uint16_t, Owners>& owners) {
    std::ifstream file(folder / "comm");
    std::string name;  // which the process chooses itself
    std::getline(file, name);
    std::error_code error;
    for (fs::directory_iterator entry(folder / "fd", error), end; !error && entry != end; entry.increment(error)) {
        std::error_code gone;
        const auto target = fs::read_symlink(entry->path(), gone).string();  // of a socket: "socket:[INODE]"
        if (!target.starts_with("socket:[")) continue;
        const auto inode = parse_number<std::uint32_t>(std::string_view(target).substr(8, target.size() - 9));
        const auto [first, last] = ports.equal_range(inode.value_or(0));
        for (auto found = first; found != last; ++found) owners[found->second].insert(printable(name));
    }
}

std::map<std::uint16_t, Owners> owners_of_ports(const std::vector<ListeningSocket>& sockets) {
    const SightOfProcesses sight;
    PortsByInode ports;
    std::map<std::uint16_t, Owners> owners;
    for (const auto& socket : sockets) {
        ports.emplace(socket.inode, socket.local.port());
        owners[socket.local.port()];
    }
    std::error_code error;
    for (fs::directory_iterator entry("/proc", error), end; !error && entry != end; entry.increment(error))
        add_process(entry->path(), ports, owners);
    return owners;
}

// A message must fit into a line of a log: leaves the first ranges alone, and returns the number of ports in the
// others, as in " and 9 more"; "" if there are none.
template <typename Range>
std::string shorten(std::vector<Range>& ranges) {
    std::size_t left = 0;
    for (; ranges.size() > ranges_in_a_line; ranges.pop_back()) left += ranges.back().size();
    return left == 0 ? "" : fmt::format(" and {} more", left);
}

struct OwnedRange : PortRange {
    Owners owners;
};

// "22 (sshd), 80-89 (nginx), 443"
std::string with_owners(const std::vector<ListeningSocket>& sockets) {
    std::vector<OwnedRange> ranges;
    for (const auto& [port, owners] : owners_of_ports(sockets)) {
        if (!ranges.empty() && ranges.back().last + 1 == port && ranges.back().owners == owners)
            ranges.back().last = port;
        else
            ranges.push_back({{port, port}, owners});
    }
    const auto more = shorten(ranges);
    std::string text;
    for (const auto& range : ranges) {
        text += fmt::format("{}{}", text.empty() ? "" : ", ", to_string(range));
        if (!range.owners.empty()) text += fmt::format(" ({})", fmt::join(range.owners, ", "));
    }
    return text + more;
}

// "'!22,!80-81'"
std::string exclusions(const PortSet& ports) {
    auto ranges = ports.ranges();
    const auto more = shorten(ranges);
    std::string text;
    for (const auto& range : ranges) text += fmt::format("{}!{}", text.empty() ? "'" : ",", to_string(range));
    return text + "'" + more;
}

// Every port on a line of its own, with a comment behind it, fits.
constexpr off_t max_size = 4 << 20;

[[noreturn]] void fail_to_read(const std::string& path, std::string_view why) {
    throw std::runtime_error(fmt::format("reading ports file {}: {}", path, why));
}

std::string read_whole(const std::string& path) {
    // The path may lead to a FIFO or a terminal: open neither waits nor takes it over.
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat before{};
    if (!file && errno == EACCES)
        fail_to_read(path, "Permission denied; let the server's user read it, or choose another by --user");
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

// Of the calling thread's network namespace; the kernel's defaults if they can't be read.
EphemeralPorts ephemeral_ports() {
    const auto range = read_sysctl("net/ipv4/ip_local_port_range");
    const int error = errno;
    auto local =
        parse_ephemeral_ports(range.value_or(""), read_sysctl("net/ipv4/ip_local_reserved_ports").value_or(""));
    if (!range) local.unreadable = error_text(error);
    return local;
}

PortSet wanted_ports(const Options& options) {
    PortList list = options.ports;
    if (options.ports_file) list.add(read_ports_file(*options.ports_file));
    PortSet ports = list.ports();
    if (ports.empty()) fail_to_read(*options.ports_file, "after the exclusions no port is left");
    if (!options.allow_ephemeral) check_ephemeral_ports(ports, ephemeral_ports());
    return ports;
}

// Throws if another socket listens on one of `ports`, or warns, if --shadow-listeners allows it.
void check_listeners(const Options& options, const PortSet& ports, std::uint64_t listener_cookie) {
    std::vector<ListeningSocket> others;
    try {
        others = shadowed(listening_sockets(), ports, options.addresses, listener_cookie);
    } catch (const std::runtime_error& error) {
        if (options.shadow_listeners) return log_warning("{}; ports may be taken from other listeners", error.what());
        throw std::runtime_error(
            fmt::format("{}. --shadow-listeners starts without knowing whom a port is taken from", error.what()));
    }
    if (others.empty()) return;
    const auto text = explain_conflicts(others, options.shadow_listeners);
    if (!options.shadow_listeners) throw std::runtime_error(text);
    log_warning(text);
}

}  // namespace

std::vector<ListeningSocket> shadowed(std::vector<ListeningSocket> sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses, std::uint64_t own) {
    std::erase_if(sockets, [&](const ListeningSocket& socket) {
        const auto is_asked_for = [&](const auto& prefix) { return overlap(socket, prefix); };
        return socket.cookie == own || !ports.contains(socket.local.port()) ||
               (!addresses.empty() && std::ranges::none_of(addresses, is_asked_for));
    });
    return sockets;
}

std::string explain_conflicts(const std::vector<ListeningSocket>& sockets, bool taken) {
    PortSet ports;
    for (const auto& socket : sockets) ports.insert(socket.local.port());
    const bool one = ports.size() == 1;
    const auto what = fmt::format(fmt::runtime(one ? "port {} is already served by another socket"
                                                   : "ports {} are already served by other sockets"),
                                  with_owners(sockets));
    const auto* whose = one ? "its" : "their";
    if (taken) return fmt::format("{}: --shadow-listeners takes {} new connections", what, whose);
    return fmt::format("{}: leave {} out ({}), or pass --shadow-listeners to take {} new connections", what,
                       one ? "it" : "them", exclusions(ports), whose);
}

EphemeralPorts parse_ephemeral_ports(std::string_view range, std::string_view reserved) {
    // Linux's default since 4.2.
    EphemeralPorts local{.range = parse_range(range, '\t').value_or(PortRange{32768, 60999})};
    local.usable.insert(local.range.first, local.range.last);
    PortSet out_of_use;
    std::istringstream list{std::string(reserved)};
    for (std::string piece; std::getline(list, piece, ',');)
        if (const auto ports = parse_range(piece)) out_of_use.insert(ports->first, ports->last);
    local.usable = local.usable - out_of_use;
    return local;
}

void check_ephemeral_ports(const PortSet& ports, const EphemeralPorts& local) {
    const auto closed = local.usable - ports;
    constexpr std::size_t enough = 1024;
    const auto must_stay = local.usable.size() < enough ? (local.usable.size() + 1) / 2 : enough;
    if (closed.size() >= must_stay) return;
    // The shortest range at the end that has as many open ports as are missing.
    const auto open = (local.usable - closed).to_vector();
    const PortRange left_out{open[open.size() - (must_stay - closed.size())], open.back()};
    const std::string name = "net.ipv4.ip_local_port_range";
    const auto source = local.unreadable.empty()
                            ? name
                            : fmt::format("the kernel's default, as {} can't be read: {}", name, local.unreadable);
    throw std::runtime_error(fmt::format(
        "too few of ports {} stay closed: the host takes the local ports of its own connections from these ({}), and "
        "can connect nowhere while clients hold a connection on each; it needs {} that nobody can take, and the list "
        "leaves it {}: leave some out ('!{}'), or pass --allow-ephemeral in a network namespace of its own",
        to_string(local.range), source, must_stay, closed.size(), to_string(left_out)));
}

PortList read_ports_file(const std::string& path) { return parse_ports_file(read_whole(path), path); }

PortList parse_ports_file(std::string_view text, const std::string& path) {
    constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";  // Windows editors write it
    if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
    PortList list;
    for (int number = 1; !text.empty(); ++number) {
        const auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        try {
            if (const auto ports = trim(line.substr(0, line.find('#'))); !ports.empty()) list.add(ports);
        } catch (const std::runtime_error& error) {
            throw std::runtime_error(fmt::format("{}:{}: {}", path, number, error.what()));
        }
    }
    if (list.empty()) fail_to_read(path, "it lists no ports; write at least one, such as 7");
    return list;
}

std::string describe_open(const PortSet& ports, const std::string& failure) {
    return fmt::format("{} open: {}{}{}", plural(ports.size(), "TCP port"), ports.to_string(ranges_in_a_line),
                       failure.empty() ? "" : "; the last reload failed: ", failure);
}

PortSet plan_ports(const Options& options, const PortSet& open, std::uint64_t listener_cookie) {
    PortSet ports = wanted_ports(options);
    check_listeners(options, ports - open, listener_cookie);
    return ports;
}

}  // namespace echo_server
