// SPDX-License-Identifier: BSD-2-Clause
// The output of 'echo-server status' about the servers in a namespace.
#pragma once

#include <nlohmann/json.hpp>

#include "support/netns.h"

namespace echo_server {

/// All servers, as an array. Fails the test if status fails.
nlohmann::json status(const Netns& netns);

/// The only server. Fails the test if there is none, or more than one.
nlohmann::json only_status(const Netns& netns);

}  // namespace echo_server
