// SPDX-License-Identifier: BSD-2-Clause
// What 'echo-server status' says of the servers in a namespace.
#pragma once

#include <nlohmann/json.hpp>

#include "support/netns.h"

namespace echo_server {

/// All of them, as an array. Fails the test if status does.
nlohmann::json status(const Netns& netns);

/// The one that is there. Fails the test if there is none, or more.
nlohmann::json only_status(const Netns& netns);

}  // namespace echo_server
