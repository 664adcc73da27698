// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/privileges.h"
#include "net/port_set.h"

namespace echo_server {

/// Reads a port list from the file at `path`: a PortList on each line; '#' starts a comment. Opens only regular
/// files. Throws std::runtime_error, with file and line, if the file can't be read whole, lists nothing, or is wrong
/// in any line. Quotes the line only if `reader`, the user that the process is or becomes, may read the file.
PortList read_ports_file(const std::string& path, const User& reader);

/// Why `user` can't read the file; nothing if the user can, or if that can't be found out.
std::string why_not_readable(const std::string& path, const User& user);

/// read_ports_file() for `text`, the contents of the file. `path` is for messages alone. A line is quoted only if
/// `may_quote` returns true.
PortList parse_ports_file(
    std::string_view text, const std::string& path, const std::function<bool()>& may_quote = [] { return true; });

}  // namespace echo_server
