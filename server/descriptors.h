// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <optional>

/// Raises the process's limit of open descriptors (RLIMIT_NOFILE) to the hard one.
void raise_descriptor_limit();

/// How many connections may be open at a time: `wanted`, or without it what the descriptors that are free now allow,
/// less a reserve for what else must be opened at times. Throws std::runtime_error if there are too few for that.
std::size_t connection_limit(std::optional<std::size_t> wanted);
