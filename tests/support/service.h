// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "support/client.h"
#include "support/server.h"
#include "support/service_manager.h"

namespace echo_server {

/// A service of systemd with a descriptor store, and its processes, one after the other.
class Service {
 public:
    explicit Service(const Netns& netns) : netns_(netns), systemd(netns) {}

    /// Returns once the new process is ready.
    void start(const Command& arguments);
    /// A start that fails; returns its output.
    std::string fail_to_start(const Command& arguments);
    /// Returns a client of port 7. While it stays connected, the process drains and does not end.
    Client start_with_idle_client();
    void stop();
    void start_and_stop(const Command& arguments);
    void crash() const;

 private:
    const Netns& netns_;

 public:
    ServiceManager systemd;
    std::unique_ptr<Server> process;
};

/// A client that connects now; it is served later.
Client newcomer(const Netns& netns, std::uint16_t port);

/// Whether a newcomer is served, to the end of its connection.
bool is_served(Client& newcomer);

}  // namespace echo_server
