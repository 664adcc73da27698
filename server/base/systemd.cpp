// SPDX-License-Identifier: BSD-2-Clause
#include "base/systemd.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
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

namespace {

void put(const DescriptorStore::Entry& entry) {
    const auto message = fmt::format("FDSTORE=1\nFDNAME={}", entry.name);
    ::sd_pid_notify_with_fds(0, 0, message.c_str(), &entry.fd, 1);
}

void remove(const std::string& name) { ::sd_notify(0, fmt::format("FDSTOREREMOVE=1\nFDNAME={}", name).c_str()); }

}  // namespace

bool DescriptorStore::exists() {
    // systemd sets it since version 254; for older versions the unit does.
    const char* size = std::getenv("FDSTORE");
    return size != nullptr && parse_number<unsigned>(size).value_or(0) > 0 && std::getenv("NOTIFY_SOCKET") != nullptr;
}

void DescriptorStore::replace(const std::vector<Entry>& entries) {
    // First the new, because ports close with the last link.
    for (const auto& entry : entries) {
        const auto is_entry = [&](const NamedFd& old) { return old.name == entry.name; };
        if (exists() && std::ranges::none_of(stored_, is_entry)) put(entry);
        std::erase_if(stored_, is_entry);
        own_.push_back(entry.name);
    }
    for (const auto& old : stored_) remove(old.name);
    stored_.clear();
}

void DescriptorStore::clear() {
    for (const auto& old : stored_) remove(old.name);
    for (const auto& name : own_) remove(name);
    if (!stored_.empty()) wait_for_service_manager();
    stored_.clear();
    own_.clear();
}

}  // namespace echo_server
