// SPDX-License-Identifier: BSD-2-Clause
#pragma once

namespace echo_server {

/// Opens /dev/null for standard input, output and error where the parent has left them closed: the next sockets and
/// pipes would get these numbers, and lines of the log would go to clients. To be called before anything is opened. Throws
/// std::system_error.
void open_closed_standard_streams();

}  // namespace echo_server
