// SPDX-License-Identifier: BSD-2-Clause
#include "dispatcher.h"

#include <doctest/doctest.h>

#include <cerrno>
#include <string>
#include <vector>

TEST_CASE("why a BPF program could not be loaded") {
    struct Case {
        int error;
        bool has_sk_lookup;
        bool has_sockmap;
        std::string says;
    };
    const std::vector<Case> cases = {
        {EPERM, false, false,
         "CAP_BPF and CAP_NET_ADMIN are needed (before Linux 5.11 'ulimit -l unlimited' as well): start echo-server with sudo"},
        {EACCES, true, true, "Permission denied; --verbose shows what libbpf says"},
        {EMFILE, true, true, "Too many open files; --verbose shows what libbpf says"},
        {ENOSYS, false, false, "CONFIG_BPF_SYSCALL=y is needed"},
        {EINVAL, false, true, "no sk_lookup programs: Linux 5.10 or newer is needed"},
        {EINVAL, true, false, "no sockmap: one built with CONFIG_BPF_STREAM_PARSER=y is needed"},
        {ENOMEM, true, true, "Cannot allocate memory; --verbose shows what libbpf says"},
    };
    for (const auto& one : cases) {
        CAPTURE(one.says);
        CHECK(explain_load_error(one.error, one.has_sk_lookup, one.has_sockmap).find(one.says) != std::string::npos);
    }
}
