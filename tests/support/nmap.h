// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>

#include "support/process.h"

namespace echo_server {

/// Runs nmap, without names and without a ping; returns what it prints. Fails the test if nmap fails.
std::string nmap(const Netns& from, const Command& arguments);

/// The ports in nmap's output: the first group of `pattern`, at each of its matches.
std::string ports_in(const std::string& output, const std::string& pattern);

}  // namespace echo_server
