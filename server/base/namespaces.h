// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>

#include "base/fd.h"

namespace echo_server {

/// Throws std::runtime_error if there is no /proc, which tells of namespaces, of descriptors, and of other processes.
void check_proc();

/// True unless the process is in a user namespace other than the first one of the kernel, where its capabilities count for
/// less.
bool in_initial_user_namespace();

/// Inode of the process's PID namespace, or 0 if it can't be read.
std::uint64_t pid_namespace();

/// The same of its time namespace.
std::uint64_t time_namespace();

/// The network namespace of the calling thread (others of the process may be in another one).
struct CurrentNetns {
    /// Throws std::runtime_error.
    CurrentNetns();

    Fd fd;
    std::uint64_t inode = 0;  ///< as 'bpftool link' shows it
};

}  // namespace echo_server
