// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace echo_server {

/// Raises the soft limit of open descriptors (RLIMIT_NOFILE) to the hard limit.
void raise_descriptor_limit();

/// Throws std::runtime_error, which says how many descriptors are needed, if the limit is too low for a server of
/// `threads` threads and `wanted` connections (or one connection). To be called before the server opens anything of its
/// own.
void check_descriptor_limit(std::size_t threads, std::optional<std::size_t> wanted);

/// `problem`, the message of an EMFILE, with the limit and what to do.
std::string explain_descriptor_limit(const std::string& problem);

/// The limit of open connections: `wanted`, or else the number of descriptors that are free now, less a reserve for
/// what the server opens at times. Throws std::runtime_error if there are too few descriptors.
std::size_t connection_limit(std::optional<std::size_t> wanted);

}  // namespace echo_server
