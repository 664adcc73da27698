// SPDX-License-Identifier: BSD-2-Clause
#pragma once

namespace echo_server {

/// Opens /dev/null for each of standard input, output and error that the parent has left closed: the next sockets
/// would get these numbers, and lines of the log would go to clients. To be called before anything else is opened.
/// Throws std::system_error.
void open_closed_standard_streams();

}  // namespace echo_server
