// SPDX-License-Identifier: BSD-2-Clause
#include "base/systemd.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <cstdint>
#include <cstdlib>

#include "base/text.h"

namespace echo_server {
namespace {

void remove(const std::string& name) { notify(fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name).c_str()); }

}  // namespace

void notify(const char* state) { ::sd_notify(0, state); }

void notify(std::string_view state, std::string_view status) {
    // Only one line, because a newline in `status` would start another message.
    notify(fmt::format("{}{}STATUS={}", state, state.empty() ? "" : "\n", printable(status)).c_str());
}

void notify_reloading() {
    const auto now = std::chrono::duration_cast<std::chrono::microseconds>(time_of(CLOCK_MONOTONIC));
    notify(fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.count()).c_str());
}

std::optional<std::chrono::microseconds> watchdog_limit() {
    std::uint64_t limit = 0;
    if (::sd_watchdog_enabled(0, &limit) <= 0) return {};
    return std::chrono::microseconds(limit);
}

DescriptorStore::DescriptorStore() {
    char** names = nullptr;
    const int count = ::sd_listen_fds_with_names(1, &names);
    for (int i = 0; i < count; ++i) {
        stored_.push_back({names[i], Fd(SD_LISTEN_FDS_START + i)});
        std::free(names[i]);
    }
    std::free(static_cast<void*>(names));
}

bool DescriptorStore::exists() {
    // systemd sets $FDSTORE since version 254. For older versions the unit sets it.
    const char* size = std::getenv("FDSTORE");
    return size != nullptr && parse_number<unsigned>(size).value_or(0) > 0 && std::getenv("NOTIFY_SOCKET") != nullptr;
}

void DescriptorStore::replace(const std::vector<std::pair<std::string, int>>& entries) {
    // Adds the new ones first, because the ports close with the last link.
    for (const auto& entry : entries) {
        const auto& name = entry.first;
        const bool is_there = std::erase_if(stored_, [&](const Entry& old) { return old.name == name; }) > 0;
        if (!exists()) continue;
        if (!is_there)
            ::sd_pid_notify_with_fds(0, 0, fmt::format("FDSTORE=1\nFDNAME={}", name).c_str(), &entry.second, 1);
        own_.push_back(name);
    }
    for (const auto& old : stored_) remove(old.name);
    stored_.clear();
}

void DescriptorStore::clear() {
    for (const auto& old : stored_) remove(old.name);
    for (const auto& name : own_) remove(name);
    // Waits until systemd has read the messages: it ignores those of a process that has ended by then.
    constexpr std::uint64_t limit = 5'000'000;  // microseconds
    if (!stored_.empty()) ::sd_notify_barrier(0, limit);
    stored_.clear();
    own_.clear();
}

}  // namespace echo_server
