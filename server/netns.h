// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>

#include "fd.h"

/// Throws std::runtime_error if there is no /proc, which tells of namespaces, of descriptors, and of other processes.
void check_proc();

/// Inode of the process's PID namespace, or 0 if it can't be read.
std::uint64_t pid_namespace();

/// The network namespace of the calling thread (others of the process may be in another one).
struct CurrentNetns {
    /// Throws std::runtime_error.
    CurrentNetns();

    Fd fd;
    std::uint64_t inode = 0;  ///< as 'bpftool link' shows it
};
