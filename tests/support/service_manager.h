// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "base/os.h"
#include "base/systemd.h"
#include "support/netns.h"

namespace echo_server {

/// Plays systemd: hears what a service says by sd_notify(3), and keeps its descriptors.
class ServiceManager {
 public:
    explicit ServiceManager(const Netns& netns);

    /// The next message that is not about descriptors, or "nothing" after the time limit.
    std::string receive();
    /// Receives until the service says `text`.
    void wait_for(const std::string& text);

    /// The descriptors that the service has stored, as far as its messages were received.
    std::vector<DescriptorStore::Entry> stored;
    /// Their names, without the numbers: "link, listener".
    [[nodiscard]] std::string kinds() const;

    // For Process's in_child.

    /// The program is a service without a descriptor store.
    static void start();
    /// The service has a store, and gets what is there.
    void start_with_store() const;

 private:
    // The next message; its descriptor comes into `fd`.
    std::string next(Fd& fd);

    Fd socket_;
};

}  // namespace echo_server
