// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace echo_server {

/// Raises the process's limit of open descriptors (RLIMIT_NOFILE) to the hard one.
void raise_descriptor_limit();

/// Throws std::runtime_error, which says how many descriptors are needed, if the limit is too low for a server of `threads`
/// threads with `wanted` connections, or with one. To be called before it opens anything.
void check_descriptor_limit(std::size_t threads, std::optional<std::size_t> wanted);

/// `problem`, which was that there was no descriptor left, with the limit and what to do.
std::string explain_descriptor_limit(const std::string& problem);

/// How many connections may be open at a time: `wanted`, or without it what the descriptors that are free now allow,
/// less a reserve for what else must be opened at times. Throws std::runtime_error if there are too few for that.
std::size_t connection_limit(std::optional<std::size_t> wanted);

}  // namespace echo_server
