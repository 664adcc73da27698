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

// Messages to systemd (sd_notify(3)), and the descriptors that it keeps. Without systemd nothing happens.

/// Sends `state`, such as "READY=1". Needs no memory from the heap.
void notify(const char* state);
/// Sends `state`, or nothing if it is "", and `status`, the line that 'systemctl status' shows.
void notify(std::string_view state, std::string_view status);

/// A reload has begun: until "READY=1" systemd waits for it.
void notify_reloading();

/// How long systemd waits for "WATCHDOG=1" before it ends this process (WatchdogSec= in systemd.service(5)); nothing if
/// it does not wait.
std::optional<std::chrono::microseconds> watchdog_limit();

/// What systemd keeps open for the service from one of its processes to the next (FileDescriptorStoreMax= in
/// systemd.service(5)): through a restart and a crash, until the service has stopped.
class DescriptorStore {
 public:
    struct Entry {
        std::string name;  ///< names this descriptor and no other, as names are all that systemd knows to tell them by
        Fd fd;
    };

    /// Takes what systemd has passed (sd_listen_fds(3)): what an earlier process has put there.
    DescriptorStore();

    /// Whether the service has a store ($FDSTORE).
    [[nodiscard]] static bool exists();

    /// What an earlier process has put there. A descriptor may be taken out of its entry, the entry stays.
    std::vector<Entry>& stored() { return stored_; }

    /// Puts the descriptors there, each by its name, and takes out everything else.
    void replace(const std::vector<std::pair<std::string, int>>& entries);

    /// Takes everything out. What was stored is closed when this returns, by systemd and by this process. Without this
    /// call the next process of the service gets what is there.
    void clear();

 private:
    std::vector<Entry> stored_;
    std::vector<std::string> own_;  // names of what this process has put there
};

}  // namespace echo_server
