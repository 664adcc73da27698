// SPDX-License-Identifier: BSD-2-Clause
// The output of 'echo-server status' about the servers in a namespace.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "support/netns.h"

namespace echo_server {

/// All servers, as an array. Fails the test if status fails.
nlohmann::json status(const Netns& netns);

/// The only server. Fails the test if there is none, or more than one.
nlohmann::json only_status(const Netns& netns);

/// Whether the bytes of all ports of the only server are those that it has received and sent.
bool bytes_add_up(const Netns& netns);

/// The ports of the only server at each level, as port lists; without levels that are not known.
using ShownLevels = std::map<std::string, std::string>;
ShownLevels levels(const Netns& netns);

/// Waits until these are the levels, because the server counts a moment after the client's call has returned. Fails the
/// test if they never are.
void check_levels(const Netns& netns, const ShownLevels& expected);

}  // namespace echo_server
