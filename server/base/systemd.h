// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/os.h"

namespace echo_server {

// Messages to systemd (sd_notify(3)), and the descriptors that it stores. Without systemd, these functions do nothing.

/// Sends `state`, such as "READY=1". Needs no memory from the heap.
void notify(const char* state);
/// Sends `state`, unless it is "", and `status`, the line that 'systemctl status' shows.
void notify(std::string_view state, std::string_view status);

/// Tells systemd that a reload has begun: systemd waits for "READY=1".
void notify_reloading();

/// How long systemd waits for "WATCHDOG=1" before it ends this process (WatchdogSec= in systemd.service(5)), or nothing
/// if there is no such limit.
std::optional<std::chrono::microseconds> watchdog_limit();

/// The descriptors that systemd keeps open for the service when one process ends and the next starts, through a restart
/// and a crash, until the service has stopped (FileDescriptorStoreMax= in systemd.service(5)).
class DescriptorStore {
 public:
    struct Entry {
        std::string name;  ///< unique, because systemd removes descriptors by their names
        Fd fd;
    };

    /// Takes the descriptors that systemd has passed (sd_listen_fds(3)), which an earlier process has stored.
    DescriptorStore();

    /// Whether the service has a store ($FDSTORE).
    [[nodiscard]] static bool exists();

    /// What an earlier process has stored. The caller may move a descriptor out of its entry; the entry stays.
    std::vector<Entry>& stored() { return stored_; }

    /// Stores these descriptors, with their names, and removes all others. Keeps a stored one that has the same name.
    void replace(const std::vector<std::pair<std::string, int>>& entries);

    /// Removes everything, for otherwise the next process of the service gets it. When this returns, systemd and this
    /// process have closed all that stored() had.
    void clear();

 private:
    std::vector<Entry> stored_;
    std::vector<std::string> own_;  // names of what this process has stored
};

}  // namespace echo_server
