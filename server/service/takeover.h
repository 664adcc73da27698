// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "dispatch/running_servers.h"

namespace echo_server {

/// What a new process needs of a running one to take over its service: its listening socket, shared from now on, and the
/// means to tell it so. Nothing changes for the running one before complete().
class Takeover {
 public:
    /// Duplicates both (pidfd_getfd(2)); needs CAP_SYS_PTRACE, or the same user. `running` share one socket, or have none
    /// any more; the newest of them first: there is more than one where an older one has not ended yet. Throws
    /// std::runtime_error.
    explicit Takeover(const std::vector<RunningServer>& running);

    [[nodiscard]] std::size_t count() const { return running_.size(); }
    [[nodiscard]] bool includes(std::uint32_t program) const;
    /// The processes, as in "12, 34".
    [[nodiscard]] std::string pids() const;
    /// Passes the listening socket on, once; none if the running processes have lost it.
    [[nodiscard]] Fd take_listener() { return std::move(listener_); }

    /// Tells the running processes to leave the socket to this one and to drain. Needs no privilege. Throws
    /// std::runtime_error.
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

/// If an echo-server runs in this network namespace: what it takes to replace it, if that is wanted, otherwise throws
/// std::runtime_error, which names it. Nothing if none runs, or if this process is not allowed to know.
std::optional<Takeover> prepare_takeover(bool replace);

/// To be called once `own_program` is attached: throws std::runtime_error if another echo-server, which `takeover` does
/// not replace, has come up at the same time. Of two that find each other one gives way, or both. Logs if programs of
/// another kind are attached as well.
void check_alone(std::uint32_t own_program, const std::optional<Takeover>& takeover);

}  // namespace echo_server
