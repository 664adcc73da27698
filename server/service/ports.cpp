// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <span>
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

using Names = std::map<std::uint16_t, std::set<std::string>>;  // of the programs that have a port

Names names_of(const std::vector<ListeningSocket>& sockets) {
    const SightOfProcesses sight;
    std::unordered_multimap<std::string, std::uint16_t> ports;  // by the link of the socket's descriptors in /proc
    Names names;
    for (const auto& socket : sockets) {
        ports.emplace(fmt::format("socket:[{}]", socket.inode), socket.local.port());
        names[socket.local.port()];
    }
    glob_t descriptors{};
    ::glob("/proc/[0-9]*/fd/*", GLOB_NOSORT, nullptr, &descriptors);
    const std::unique_ptr<glob_t, decltype(&::globfree)> owner(&descriptors, ::globfree);
    for (const fs::path path : std::span(descriptors.gl_pathv, descriptors.gl_pathc)) {
        std::error_code gone;
        const auto [first, last] = ports.equal_range(fs::read_symlink(path, gone).string());
        if (first == last) continue;
        std::ifstream file(path.parent_path().replace_filename("comm"));
        std::string name;  // chosen by the process itself
        std::getline(file, name);
        for (auto found = first; found != last; ++found) names[found->second].insert(printable(name));
    }
    return names;
}

// "22 (sshd), 80,443 (nginx)"; `unknown` is the name of an unknown program, or "".
std::string list_names(const Names& names, const std::string& unknown) {
    std::vector<std::pair<std::string, PortSet>> groups;
    for (const auto& [port, programs] : names) {
        const auto name = programs.empty() ? unknown : fmt::format("{}", fmt::join(programs, ", "));
        auto group = std::ranges::find(groups, name, &std::pair<std::string, PortSet>::first);
        if (group == groups.end()) group = groups.insert(group, {name, {}});
        group->second.insert(port);
    }
    std::string text;
    for (const auto& [name, ports] : groups) {
        text += fmt::format("{}{}", text.empty() ? "" : ", ", ports.to_string(ranges_in_a_line));
        if (!name.empty()) text += fmt::format(" ({})", name);
    }
    return text;
}

// Other services have this time for a restart: meanwhile their clients must not get an echo.
constexpr std::chrono::seconds hold_time{10};

// Room for every port on a line of its own, with a comment.
constexpr off_t max_size = 4 << 20;

[[noreturn]] void fail_to_read(const std::string& path, std::string_view why) {
    throw std::runtime_error(fmt::format("reading ports file {}: {}", path, why));
}

std::string read_whole(const std::string& path) {
    // The path may lead to a FIFO or a terminal: open(2) must not wait, and must not make it our terminal.
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    struct stat before{};
    if (!file && errno == EACCES)
        fail_to_read(path, fmt::format("Permission denied for user {}: let it read the file (chmod a+r, and a+x on its "
                                       "directories), or choose another user by --user",
                                       user_of(::getpid()).value_or(User()).name));
    if (!file || ::fstat(file.get(), &before) != 0) fail_to_read(path, error_text(errno));
    if (S_ISDIR(before.st_mode)) fail_to_read(path, error_text(EISDIR));
    if (!S_ISREG(before.st_mode)) fail_to_read(path, "it is not a regular file, so it can't be read again on SIGHUP");
    if (before.st_size > max_size) fail_to_read(path, fmt::format("it is larger than {} MiB", max_size >> 20));

    std::string text(static_cast<std::size_t>(before.st_size) + 1, '\0');  // one more, to notice a file that grew
    const auto size = ::read(file.get(), text.data(), text.size());
    if (size < 0) fail_to_read(path, error_text(errno));
    text.resize(static_cast<std::size_t>(size));
    // Half of a list would close the other ports.
    struct stat now{};
    if (::fstat(file.get(), &now) != 0 || now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != before.st_mtim.tv_nsec || size != before.st_size)
        fail_to_read(path, "it changed while it was read: try again once it is complete");
    return text;
}

// Throws if `ports`, when all of them are open, leave too few of the `local` ports closed.
void check_ephemeral_ports(const PortSet& ports, const EphemeralPorts& local) {
    const auto closed = (local.usable - ports).size();
    constexpr std::size_t enough = 1024;
    const auto must_stay = local.usable.size() < enough ? (local.usable.size() + 1) / 2 : enough;
    if (closed >= must_stay) return;
    throw std::runtime_error(fmt::format(
        "too few of ports {} stay closed: the host's own connections need {} of them as local ports "
        "(net.ipv4.ip_local_port_range), and the list leaves {}: leave {} more out, or pass --allow-ephemeral in a "
        "separate network namespace",
        to_string(local.range), must_stay, closed, must_stay - closed));
}

std::vector<ListeningSocket> other_listeners(std::uint64_t listener) {
    auto sockets = listening_sockets();
    std::erase_if(sockets, [&](const ListeningSocket& socket) { return socket.cookie == listener; });
    return sockets;
}

// Where the kernel does not list other sockets, --shadow-listeners only warns.
std::vector<ListeningSocket> find_others(const Options& options, std::uint64_t listener) {
    try {
        return other_listeners(listener);
    } catch (const std::runtime_error& error) {
        if (!options.shadow_listeners)
            throw std::runtime_error(
                fmt::format("{}. --shadow-listeners starts without knowing whose ports it takes", error.what()));
        log_warning("{}; ports may be taken from other listeners", error.what());
        return {};
    }
}

}  // namespace

std::vector<ListeningSocket> shadowed(std::vector<ListeningSocket> sockets, const PortSet& ports,
                                      const std::vector<AddressPrefix>& addresses) {
    std::erase_if(sockets, [&](const ListeningSocket& socket) {
        const auto is_asked_for = [&](const auto& prefix) { return overlap(socket, prefix); };
        return !ports.contains(socket.local.port()) ||
               (!addresses.empty() && std::ranges::none_of(addresses, is_asked_for));
    });
    return sockets;
}

std::string explain_conflicts(const std::vector<ListeningSocket>& sockets, bool taken) {
    const auto names = names_of(sockets);
    const bool one = names.size() == 1;
    const auto what = fmt::format(fmt::runtime(one ? "port {} is already served by another socket"
                                                   : "ports {} are already served by other sockets"),
                                  list_names(names, ""));
    const auto* whose = one ? "its" : "their";
    const bool all_known = std::ranges::none_of(names, [](const auto& entry) { return entry.second.empty(); });
    const auto* hint = all_known ? "" : " ('sudo ss -tlnp' shows who listens)";
    if (taken) return fmt::format("{}: --shadow-listeners takes {} new connections{}", what, whose, hint);
    return fmt::format("{}: leave {} out, or pass --shadow-listeners to take {} new connections{}", what,
                       one ? "it" : "them", whose, hint);
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

std::string PortPlan::left_out(bool with_names) const {
    std::vector<std::string> parts;
    if (!taken.empty())
        parts.push_back(with_names ? list_names(names_of(takers), who_listens)
                                   : fmt::format("{} ({})", taken.to_string(ranges_in_a_line), who_listens));
    if (!hosts.empty()) parts.push_back(fmt::format("{} ({})", hosts.to_string(ranges_in_a_line), whose_ports));
    return fmt::format("{}{}", parts.empty() ? "" : "; left out: ", fmt::join(parts, ", "));
}

std::string PortPlan::describe(bool with_names) const {
    const auto ports = open();
    return fmt::format("{} open: {}{}", plural(ports.size(), "TCP port"), ports.to_string(ranges_in_a_line),
                       left_out(with_names));
}

PortPlan make_plan(const PortList& list, const Options& options, const EphemeralPorts& local,
                   const std::vector<ListeningSocket>& sockets, const PortSet& open, const PortSet& taken) {
    PortPlan plan{.named = list.named()};
    // A range within the host's own ports is intended: open it.
    auto wide = PortSet();
    for (const auto& range : list.ranges()) {
        const bool is_within = local.range.first <= range.first && range.last <= local.range.last;
        (options.allow_ephemeral || is_within ? plan.ranged : wide).insert(range.first, range.last);
    }
    const PortSet settled = plan.named | list.excluded();
    plan.ranged = (plan.ranged | (wide - local.usable)) - settled;
    plan.hosts = wide - plan.ranged - settled;
    if (!options.allow_ephemeral) check_ephemeral_ports(plan.wanted(), local);

    const auto must_be_free = (options.shadow_listeners ? plan.wanted() : plan.named) - open;
    if (const auto others = shadowed(sockets, must_be_free, options.addresses); !others.empty()) {
        const auto text = explain_conflicts(others, options.shadow_listeners);
        if (!options.shadow_listeners) throw std::runtime_error(text);
        log_warning(text);
    }
    if (!options.shadow_listeners) {
        plan.takers = shadowed(sockets, plan.ranged, options.addresses);
        plan.taken = taken & plan.ranged;
        for (const auto& socket : plan.takers) plan.taken.insert(socket.local.port());
    }
    if (!plan.open().empty()) return plan;
    throw std::runtime_error(fmt::format("the port list leaves no port to open{}: {}", plan.left_out(true),
                                         (plan.wanted() | plan.hosts).empty()
                                             ? "its exclusions (!22) remove all ports; exclude fewer, or list others"
                                             : "list other ports, or see --shadow-listeners and --allow-ephemeral"));
}

PortPlan plan_ports(const Options& options, std::uint64_t listener, const PortSet& open, const PortSet& taken) {
    PortList list = options.ports;
    if (options.ports_file) list.add(read_ports_file(*options.ports_file));
    // If these can't be read, the kernel's defaults count.
    const auto local = parse_ephemeral_ports(read_sysctl("net/ipv4/ip_local_port_range"),
                                             read_sysctl("net/ipv4/ip_local_reserved_ports"));
    return make_plan(list, options, local, find_others(options, listener), open, taken);
}

OpenPorts::OpenPorts(Options options, std::shared_ptr<Dispatcher> dispatcher, std::uint64_t listener)
    : options_(std::move(options)), dispatcher_(std::move(dispatcher)), listener_(listener) {}

Dispatcher::Change OpenPorts::set(PortPlan plan) {
    plan_.ranged = plan_.ranged | plan.ranged;  // if this fails half-way, the next look() knows which may be open
    auto change = dispatcher_->set_ports(plan.open());
    plan_ = std::move(plan);
    std::erase_if(free_since_, [&](const auto& free) { return !plan_.taken.contains(free.first); });
    left_alone_ = left_alone_ & plan_.named;
    dispatcher_->show_left_out(plan_.taken, plan_.hosts);
    return change;
}

std::string OpenPorts::look() {
    PortSet served;
    for (const auto& socket : shadowed(other_listeners(listener_), plan_.wanted(), options_.addresses))
        served.insert(socket.local.port());

    const PortSet begun = served - plan_.taken - left_alone_;
    const PortSet open = begun.empty() ? begun : begun & dispatcher_->ports();
    const PortSet closed = open & plan_.ranged;
    if (const auto named = open - closed; !named.empty())
        log_warning(
            "another program listens on ports that the list names: {}. Its new connections come here, and the next "
            "start will fail: end that program, or take these ports out of the list",
            named.to_string(ranges_in_a_line));
    left_alone_ = left_alone_ | (begun - closed);

    const auto now = std::chrono::steady_clock::now();
    std::erase_if(free_since_, [&](const auto& free) { return served.contains(free.first); });
    PortSet freed;
    for (const auto port : (plan_.taken - served).to_vector())
        if (now - free_since_.try_emplace(port, now).first->second >= hold_time) freed.insert(port);

    if (closed.empty() && freed.empty()) return {};
    auto taken = (plan_.taken | closed) - freed;
    dispatcher_->change_ports(closed, freed);
    plan_.taken = std::move(taken);
    dispatcher_->show_left_out(plan_.taken, plan_.hosts);
    std::erase_if(free_since_, [&](const auto& free) { return freed.contains(free.first); });
    std::vector<std::string> changes;
    if (!closed.empty())
        changes.push_back(fmt::format("closed: {} ({})", closed.to_string(ranges_in_a_line), who_listens));
    if (!freed.empty()) changes.push_back(fmt::format("open again: {}", freed.to_string(ranges_in_a_line)));
    return fmt::format("{}", fmt::join(changes, "; "));
}

}  // namespace echo_server
