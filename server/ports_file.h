// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <string_view>

#include "port_set.h"

/// Reads a port list from the file at `path`: the syntax of PortList on any number of lines, where '#' starts a
/// comment. Never blocks. Throws std::runtime_error, naming file and line, if the file can't be read whole, lists
/// nothing, or is wrong in any line.
PortList read_ports_file(const std::string& path);

/// The same with what is in it, `text`; `path` is for messages only.
PortList parse_ports_file(std::string_view text, const std::string& path);
