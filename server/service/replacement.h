// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/os.h"
#include "dispatch/instances.h"

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

/// If an echo-server runs in this network namespace: returns its Replacement if `replace` is true, else throws
/// std::runtime_error, which names it. Returns nothing if no server runs, or if this process may not know.
std::optional<Replacement> prepare_replacement(bool replace);

/// To be called once `own_program` is attached. Throws std::runtime_error if another echo-server, which `replacement`
/// does not replace, has started at the same time: if two start at the same moment, one or both give up. Logs if
/// sk_lookup programs of another kind are attached. The descriptor store keeps `stored` programs of processes that have
/// ended.
void check_alone(std::uint32_t own_program, const std::optional<Replacement>& replacement, std::size_t stored);

}  // namespace echo_server
