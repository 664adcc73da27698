// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/privileges.h"
#include "net/port_set.h"

namespace echo_server {

/// Reads a port list from the file at `path`: the syntax of PortList on any number of lines, where '#' starts a
/// comment. Opens nothing but regular files. Throws std::runtime_error, naming file and line, if the file can't be read
/// whole, lists nothing, or is wrong in any line; the line is quoted only if `reader`, whom the process is or becomes,
/// may read it.
PortList read_ports_file(const std::string& path, const User& reader);

/// Why `user` could not read it, or nothing if that user could, or if there is no finding out.
std::string why_not_readable(const std::string& path, const User& user);

/// The same as read_ports_file() with what is in it, `text`; `path` is for messages only, and `may_quote` is asked before a
/// line is quoted.
PortList parse_ports_file(
    std::string_view text, const std::string& path, const std::function<bool()>& may_quote = [] { return true; });

}  // namespace echo_server
