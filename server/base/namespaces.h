// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>

#include "base/fd.h"

namespace echo_server {

/// Throws std::runtime_error without /proc, which the server needs for namespaces, descriptors and other processes.
void check_proc();

/// False in a user namespace other than the first of the kernel: capabilities count for less there.
bool in_initial_user_namespace();

/// Inode of the process's PID namespace, or 0 if it can't be read.
std::uint64_t pid_namespace();

/// The same for its time namespace.
std::uint64_t time_namespace();

/// The network namespace of the calling thread (other threads of the process may be in another).
struct CurrentNetns {
    /// Throws std::runtime_error.
    CurrentNetns();

    Fd fd;
    std::uint64_t inode = 0;  ///< as 'bpftool link' shows it
};

}  // namespace echo_server
