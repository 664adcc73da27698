// SPDX-License-Identifier: BSD-2-Clause
#include "base/descriptor_limit.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <system_error>

namespace echo_server {
namespace {

// For the ports file, the netlink socket, files in /proc, and a connection that is being accepted.
constexpr std::size_t reserve = 8;

// The eight maps once more: SIGUSR1 reads them in a thread that may outlive their owner. They are opened last.
constexpr std::size_t for_status = 8;

// The socket of 'echo-server reload', which is opened late; eight commands that wait, and one that comes.
constexpr std::size_t for_commands = 10;

std::size_t descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

std::size_t open_descriptors() {
    std::error_code error;
    const std::filesystem::directory_iterator entries("/proc/self/fd", error);
    // The listing itself needs a descriptor, and none is free.
    if (error) return descriptor_limit();
    return static_cast<std::size_t>(std::distance(entries, {}));
}

[[noreturn]] void refuse(std::optional<std::size_t> wanted, std::size_t needed, std::string_view hint) {
    const auto limit = descriptor_limit();
    throw std::runtime_error(fmt::format(
        "{} needs {} descriptors, {} of them for the server itself, and the limit is {}: raise it ('ulimit -n {}', or "
        "LimitNOFILE in the systemd unit){}{}",
        wanted ? fmt::format("--max-connections {}", *wanted) : "even one connection", needed,
        needed - wanted.value_or(1), limit, needed, wanted ? ", or allow fewer connections" : "", hint));
}

}  // namespace

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

void check_descriptor_limit(std::size_t threads, std::optional<std::size_t> wanted) {
    // The BPF program, its eight maps, its types and its link; the listener; four for signals, one for a handover,
    // four for what is done in the background; a folder with pins; the eventfd of a server that is replaced; and a few
    // more.
    constexpr std::size_t for_the_server = 24;
    constexpr std::size_t for_a_thread = 6;
    // The last step of a start opens the program and the maps of each echo-server here: with --replace, two.
    constexpr std::size_t for_a_look = 20;
    const auto needed = open_descriptors() + for_the_server + threads * for_a_thread +
                        std::max(for_status + for_commands + reserve + wanted.value_or(1), for_a_look);
    if (needed > descriptor_limit()) refuse(wanted, needed, threads > 1 ? ", or ask for fewer with --threads" : "");
}

std::string explain_descriptor_limit(const std::string& problem) {
    const auto limit = descriptor_limit();
    return fmt::format("{}; the limit is {}: raise it ('ulimit -n {}', or LimitNOFILE in the systemd unit)", problem,
                       limit, 2 * limit);
}

std::size_t connection_limit(std::optional<std::size_t> wanted) {
    const auto limit = descriptor_limit();
    const auto kept = open_descriptors() + for_status + for_commands + reserve;
    const std::size_t available = limit > kept ? limit - kept : 0;
    if (available > 0 && wanted.value_or(1) <= available) return wanted.value_or(available);
    refuse(wanted, wanted.value_or(1) + kept, "");
}

}  // namespace echo_server
