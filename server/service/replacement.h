// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/os.h"
#include "dispatch/instances.h"
#include "net/address.h"
#include "net/port_set.h"

namespace echo_server {

/// The servers that run in this network namespace, the newest first; of servers that are attached and detached, the
/// attached alone; none if this process may not know, unless they are `needed`. Throws std::system_error.
std::vector<Instance> running_servers(bool needed);

/// Takes over the listening socket of a running server, and tells that server to drain. There is no protocol: the new
/// process finds the server by its BPF program, duplicates its listener and an eventfd from it, and writes to that
/// eventfd. The running server goes on as before until complete().
class Replacement {
 public:
    /// Duplicates the descriptors (pidfd_getfd(2)); needs CAP_SYS_PTRACE, or the same user. `running` has the newest
    /// server first. All of them must share one socket, or have lost it: there can be several if an older server has
    /// not ended yet. Throws std::runtime_error.
    explicit Replacement(const std::vector<Instance>& running);

    [[nodiscard]] bool includes(std::uint32_t program) const;
    /// "process 12, 34, which drain"
    [[nodiscard]] std::string description() const;
    /// Passes the listening socket on, once; none if the running processes have lost it.
    [[nodiscard]] Fd take_listener() { return std::move(listener_); }

    /// Tells the running processes to leave the socket to this process and to drain. Needs no privilege.
    void complete();

 private:
    struct Running {
        std::uint32_t program;
        pid_t pid;
        Fd replaced;
    };

    Fd listener_;
    std::vector<Running> running_;
};

/// The Replacement of the echo-server that runs in this network namespace; nothing if none runs. Throws
/// std::runtime_error.
std::optional<Replacement> prepare_replacement();

/// Takes the server out of `running` in whose place a new one with a socket on `port` would come: whose socket has that
/// port, or is gone; if the port is 0, the only one. Nothing if there is none.
std::optional<Instance> take_predecessor(std::vector<Instance>& running, std::uint16_t port);

/// The echo-servers that run in this network namespace; none if this process may not know. Throws std::runtime_error if
/// a new one would come in the place of one of them.
std::vector<Instance> find_neighbours(std::uint16_t port);

/// Throws std::runtime_error if one of `neighbours` has one of `ports` open, on one of `addresses` (on any, if there
/// are none): of two programs that have a port, the one wins that was attached last.
void check_neighbours(const std::vector<Instance>& neighbours, const PortSet& ports,
                      const std::vector<AddressPrefix>& addresses);

/// To be called once the program of `self` is attached. Throws std::runtime_error if a server that is not replaced has
/// the same socket, or ports in common: if two such servers start at the same moment, one or both give up. Logs if
/// sk_lookup programs of another kind are attached. The descriptor store keeps `stored` programs of processes that have
/// ended.
void check_alone(const Instance& self, const PortSet& ports, const std::vector<AddressPrefix>& addresses,
                 const std::optional<Replacement>& replacement, std::size_t stored);

}  // namespace echo_server
