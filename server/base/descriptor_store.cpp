// SPDX-License-Identifier: BSD-2-Clause
#include "base/descriptor_store.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>

#include "base/text.h"

namespace echo_server {
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
        if (exists() && std::ranges::none_of(kept_, is_entry)) put(entry);
        std::erase_if(kept_, is_entry);
        own_.push_back(entry.name);
    }
    for (const auto& old : kept_) remove(old.name);
    kept_.clear();
}

void DescriptorStore::empty() {
    for (const auto& old : kept_) remove(old.name);
    for (const auto& name : own_) remove(name);
    if (!kept_.empty()) wait_for_service_manager();
    kept_.clear();
    own_.clear();
}

}  // namespace echo_server
