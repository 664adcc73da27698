// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/dispatcher.h"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
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
         "CAP_BPF and CAP_NET_ADMIN are needed (before Linux 5.11 also 'ulimit -l unlimited'): start echo-server as "
         "root, or give it both (AmbientCapabilities= in a systemd unit, --cap-add for a container, see "
         "scripts/containers.md in the sources)"},
        {EPERM, true, true, "if it has both, a seccomp filter or a security module refuses bpf()"},
        {EACCES, true, true, "--verbose shows the messages of libbpf"},
        {EMFILE, true, true, "--verbose shows the messages of libbpf"},
        {ENOSYS, false, false, "CONFIG_BPF_SYSCALL=y is needed"},
        {EINVAL, false, true, "no sk_lookup programs: Linux 5.10 or newer is needed"},
        {EINVAL, true, false, "no sockmap: one built with CONFIG_BPF_STREAM_PARSER=y is needed"},
        {ENOMEM, true, true, "--verbose shows the messages of libbpf"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.says);
        CHECK(hint_of_load(row.error, row.has_sk_lookup, row.has_sockmap).find(row.says) != std::string::npos);
    }
}

TEST_CASE("address key: a prefix makes a key, and the key that prefix") {
    for (const std::string text : {"192.0.2.0/24", "0.0.0.0/0", "192.0.2.7", "2001:db8::/33", "::/0", "2001:db8::7"}) {
        CAPTURE(text);
        const auto prefix = parse_address_prefix(text);
        CHECK(to_prefix(to_key(prefix)) == prefix);
    }
}

TEST_CASE("address key: its bits have the order in which the BPF program has those of a packet") {
    const auto ip4 = to_key(parse_address_prefix("192.0.2.0/24"));
    CHECK(ip4.bits == 32 + 24);
    CHECK(ip4.family == AF_INET);
    CHECK(std::memcmp(ip4.address, "\xc0\x00\x02\x00", 4) == 0);
    const auto ip6 = to_key(parse_address_prefix("2001:db8::/32"));
    CHECK(ip6.bits == 32 + 32);
    CHECK(ip6.family == AF_INET6);
    CHECK(std::memcmp(ip6.address, "\x20\x01\x0d\xb8", 4) == 0);
}

TEST_CASE("address key: a wrong key in the map does not make it fail") {
    echo_prefix key{};
    CHECK(to_string(to_prefix(key)) == "::/0");
    key.bits = ~0U;
    key.family = ~0U;
    CHECK_FALSE(to_string(to_prefix(key)).empty());
}

}  // namespace echo_server
