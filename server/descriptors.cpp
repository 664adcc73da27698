// SPDX-License-Identifier: BSD-2-Clause
#include "descriptors.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <filesystem>
#include <iterator>
#include <stdexcept>

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::size_t connection_limit(std::optional<std::size_t> wanted) {
    // For the ports file, the netlink socket, what is looked up in /proc, and a connection that is being accepted.
    constexpr std::size_t reserve = 8;
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const auto used = static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
    const std::size_t available = limit.rlim_cur > used + reserve ? limit.rlim_cur - used - reserve : 0;
    if (available > 0 && wanted.value_or(1) <= available) return wanted.value_or(available);
    const auto needed = wanted.value_or(1) + used + reserve;
    throw std::runtime_error(fmt::format(
        "{} takes {} descriptors, {} of them for the server itself, and the limit is {}: raise it ('ulimit -n {}', or "
        "LimitNOFILE in the systemd unit){}",
        wanted ? fmt::format("--max-connections {}", *wanted) : "even one connection", needed, used + reserve,
        limit.rlim_cur, needed, wanted ? ", or allow fewer connections" : ""));
}
