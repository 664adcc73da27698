// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/os.h"
#include "base/systemd.h"
#include "support/client.h"
#include "support/netns.h"
#include "support/server.h"

namespace echo_server {

/// Plays systemd: receives the messages of a service (sd_notify(3)), and keeps its descriptors.
class Systemd {
 public:
    explicit Systemd(const Netns& netns);

    /// The next message that is not about descriptors, or "nothing" after the time limit.
    std::string receive();
    /// Receives until the service says `text`.
    void wait_for(const std::string& text);

    /// The descriptors that the service has stored, from the messages received so far.
    std::vector<DescriptorStore::Entry> stored;
    /// Their names, without the numbers: "link, listener".
    [[nodiscard]] std::string kinds() const;

    // For Process's in_child.

    /// The program is a service without a descriptor store.
    static void start();
    /// The service has a store, and gets the descriptors in it.
    void start_with_store() const;

 private:
    // The next message; its descriptor comes into `fd`.
    std::string next(Fd& fd);

    Fd socket_;
};

/// A service of systemd with a descriptor store, and its processes, one after the other.
class Service {
 public:
    explicit Service(const Netns& netns) : systemd(netns), netns_(netns) {}

    /// Returns once the new process is ready.
    void start(const Command& arguments);
    /// A start that fails; returns its output.
    std::string fail_to_start(const Command& arguments);
    /// Returns a client of port 7. While it stays connected, the process drains and does not end.
    Client start_with_idle_client();
    void stop();
    void start_and_stop(const Command& arguments);
    void crash() const;

    Systemd systemd;
    std::unique_ptr<Server> process;

 private:
    const Netns& netns_;
};

/// A client that connects now; it is served later.
Client new_client(const Netns& netns, std::uint16_t port);

/// Whether a client is served, to the end of its connection.
bool is_served(Client& client);

}  // namespace echo_server
