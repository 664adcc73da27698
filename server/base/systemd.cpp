// SPDX-License-Identifier: BSD-2-Clause
#include "base/systemd.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string_view>

#include "base/text.h"

namespace echo_server {

namespace {

// One line: another could be a message of its own.
void notify(std::string_view before, const std::string& status) {
    ::sd_notify(0, fmt::format("{}STATUS={}", before, visible(status)).c_str());
}

}  // namespace

void notify_ready(const std::string& status) { notify("READY=1\n", status); }

void notify_reloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    ::sd_notify(0, fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1000).c_str());
}

void notify_ready_again() { ::sd_notify(0, "READY=1"); }

void notify_stopping(const std::string& status) { notify("STOPPING=1\n", status); }

void notify_status(const std::string& status) { notify("", status); }

std::optional<std::chrono::microseconds> watchdog_limit() {
    std::uint64_t limit = 0;
    if (::sd_watchdog_enabled(0, &limit) <= 0) return {};
    return std::chrono::microseconds(limit);
}

void notify_watchdog() { ::sd_notify(0, "WATCHDOG=1"); }

void wait_for_service_manager() {
    constexpr std::uint64_t limit = 5'000'000;  // microseconds
    ::sd_notify_barrier(0, limit);
}

std::vector<NamedFd> passed_descriptors() {
    char** names = nullptr;
    const int count = ::sd_listen_fds_with_names(1, &names);
    std::vector<NamedFd> descriptors;
    for (int i = 0; i < count; ++i) {
        descriptors.push_back({names[i], Fd(SD_LISTEN_FDS_START + i)});
        std::free(names[i]);
    }
    std::free(static_cast<void*>(names));
    return descriptors;
}

}  // namespace echo_server
