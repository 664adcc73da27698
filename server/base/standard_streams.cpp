// SPDX-License-Identifier: BSD-2-Clause
#include "base/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/error.h"

namespace echo_server {

void open_closed_standard_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(stream, F_GETFD) >= 0) continue;
        // open(2) returns the lowest free number, and all lower numbers are open by now.
        if (::open("/dev/null", O_RDWR) < 0) fail("opening /dev/null for a standard stream that is closed");
    }
}

}  // namespace echo_server
