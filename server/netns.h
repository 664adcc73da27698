// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>

#include "fd.h"

/// The network namespace of the calling thread (others of the process may be in another one).
struct CurrentNetns {
    /// Throws std::runtime_error.
    CurrentNetns();

    Fd fd;
    std::uint64_t inode = 0;  ///< as 'bpftool link' shows it
};
