// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "base/os.h"
#include "dispatch/instances.h"
#include "net/address.h"
#include "net/port_set.h"

namespace echo_server {

/// The servers that run in this network namespace, the newest first. If some are attached, detached ones are left out.
/// If this process is not allowed to look, returns none, or throws if `needed`. Throws std::system_error.
std::vector<Instance> running_servers(bool needed);

/// What a new process gets from the running server that it replaces. There is no protocol: it finds the server by its
/// BPF program, and duplicates its listener and an eventfd from it (pidfd_getfd(2)). The running server goes on as
/// before until complete().
struct Replacement {
    struct Server {
        std::uint32_t program;
        pid_t pid;
        Fd replaced_event;
    };

    /// The newest first, with one socket for all: there can be several if an older server has not ended yet.
    std::vector<Server> servers = {};
    Fd listener = {};  ///< their socket; empty if they have lost it
};

/// Prepares to replace the echo-server that runs in this network namespace; empty if none runs. Needs CAP_SYS_PTRACE,
/// or the same user. Throws std::runtime_error.
Replacement prepare_replacement();

/// Tells the running servers to leave the socket to this process and to drain. Needs no privilege.
void complete(const Replacement& replacement);

/// Takes out of `running` the server that a new one with a socket on `port` would replace: its socket has that port, or
/// is gone; if the port is 0, the only server. Nothing if there is none.
std::optional<Instance> take_predecessor(std::vector<Instance>& running, std::uint16_t port);

/// The echo-servers that run in this network namespace; none if this process is not allowed to look. Throws
/// std::runtime_error if a new one would replace one of them.
std::vector<Instance> find_neighbours(std::uint16_t port);

/// Throws std::runtime_error if one of `neighbours` has one of `ports` open, on one of `addresses` (on any, if there
/// are none): if two programs have a port, the one that was attached last wins.
void check_neighbours(const std::vector<Instance>& neighbours, const PortSet& ports,
                      const std::vector<AddressPrefix>& addresses);

/// To be called once the program of `self` is attached. Throws std::runtime_error if a server that is not replaced has
/// the same socket, or ports in common: if two such servers start at the same moment, one or both give up. Warns if
/// sk_lookup programs of another kind are attached. The descriptor store keeps `stored` programs of processes that have
/// ended.
void check_alone(const Instance& self, const PortSet& ports, const std::vector<AddressPrefix>& addresses,
                 const Replacement& replacement, std::size_t stored);

}  // namespace echo_server
