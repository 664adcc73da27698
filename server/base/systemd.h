// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace echo_server {

// Messages to systemd (sd_notify(3)) and descriptors from it (sd_listen_fds(3)). Without systemd nothing happens.

/// The start or a reload is done; `status` is the line that 'systemctl status' shows.
void notify_ready(const std::string& status);
void notify_reloading();

/// notify_ready() with the status unchanged. Needs no memory.
void notify_ready_again();
void notify_stopping(const std::string& status);

/// Changes the status alone.
void notify_status(const std::string& status);

/// How long systemd waits for an answer before it ends this process (WatchdogSec= in systemd.service(5)); nothing if it
/// does not wait.
std::optional<std::chrono::microseconds> watchdog_limit();
/// The answer. Needs no memory.
void notify_watchdog();

/// Waits until systemd has read all messages so far, max a few seconds. A process that ends at once must wait, because
/// systemd ignores messages of processes that it does not know any more.
void wait_for_service_manager();

/// A descriptor from systemd, with the name that its unit (FileDescriptorName=) or the store has for it.
struct NamedFd {
    std::string name;
    Fd fd;
};

/// All descriptors that systemd has passed; a later call returns none.
std::vector<NamedFd> passed_descriptors();

/// What systemd keeps open for the service from one of its processes to the next (FileDescriptorStoreMax= in
/// systemd.service(5)): through a restart and a crash, until the service has stopped. Without a store nothing happens.
class DescriptorStore {
 public:
    /// `kept` is what systemd has passed of it.
    explicit DescriptorStore(std::vector<NamedFd> kept) : stored_(std::move(kept)) {}

    /// Whether the service has one ($FDSTORE).
    [[nodiscard]] static bool exists();

    /// What an earlier process has put there. A descriptor may be taken out of its entry, the entry stays.
    std::vector<NamedFd>& stored() { return stored_; }

    struct Entry {
        std::string name;  ///< names this descriptor and no other, as names are all that systemd knows to tell them by
        int fd = -1;
    };
    /// Puts `entries` there, and takes out everything else.
    void replace(const std::vector<Entry>& entries);

    /// Takes everything out. What was kept is closed when this returns, by systemd and by this process. Without this
    /// call the next process of the service gets what is there.
    void clear();

 private:
    std::vector<NamedFd> stored_;
    std::vector<std::string> own_;  // names of what this process has put there
};

}  // namespace echo_server
