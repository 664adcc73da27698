// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/dispatcher.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

namespace echo_server {

TEST_CASE("why a BPF program could not be loaded") {
    struct Case {
        int error;
        bool has_sk_lookup;
        bool has_sockmap;
        std::string says;
    };
    const std::vector<Case> cases = {
        {EPERM, false, false,
         "CAP_BPF and CAP_NET_ADMIN are needed (before Linux 5.11 'ulimit -l "
         "unlimited' as well): "
         "start echo-server as root, or give it both (AmbientCapabilities= in a systemd unit, --cap-add for a "
         "container; where docker does not know CAP_BPF: '--user 0 --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add "
         "SETUID --cap-add SETGID')"},
        {EPERM, true, true, "if it has both, a seccomp filter (for a container, see CONTAINERS in the manual)"},
        {EACCES, true, true, "--verbose shows what libbpf says"},
        {EMFILE, true, true, "--verbose shows what libbpf says"},
        {ENOSYS, false, false, "CONFIG_BPF_SYSCALL=y is needed"},
        {EINVAL, false, true, "no sk_lookup programs: Linux 5.10 or newer is needed"},
        {EINVAL, true, false, "no sockmap: one built with CONFIG_BPF_STREAM_PARSER=y is needed"},
        {ENOMEM, true, true, "--verbose shows what libbpf says"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.says);
        CHECK(hint_of_load(row.error, row.has_sk_lookup, row.has_sockmap).find(row.says) != std::string::npos);
    }
}

}  // namespace echo_server
