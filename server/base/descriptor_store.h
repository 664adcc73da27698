// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/systemd.h"

namespace echo_server {

/// What systemd keeps open for the service from one of its processes to the next (FileDescriptorStoreMax= in
/// systemd.service(5)): through a restart and a crash, until the service has stopped. Without a store nothing happens.
class DescriptorStore {
 public:
    /// `kept` is what systemd has passed of it.
    explicit DescriptorStore(std::vector<NamedFd> kept) : kept_(std::move(kept)) {}

    /// Whether the service has one ($FDSTORE).
    [[nodiscard]] static bool exists();

    /// What an earlier process has put there. A descriptor may be taken out of its entry, the entry stays.
    std::vector<NamedFd>& kept() { return kept_; }

    struct Entry {
        std::string name;  ///< names this descriptor and no other, as names are all that systemd knows to tell them by
        int fd = -1;
    };
    /// Puts `entries` there, and takes out everything else.
    void replace(const std::vector<Entry>& entries);

    /// Takes everything out. What was kept is closed when this returns, by systemd and by this process. Without this
    /// call the next process of the service gets what is there.
    void empty();

 private:
    std::vector<NamedFd> kept_;
    std::vector<std::string> own_;  // names of what this process has put there
};

}  // namespace echo_server
