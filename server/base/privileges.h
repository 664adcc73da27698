// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace echo_server {

/// Whom the process runs as once it serves.
struct User {
    std::string name;
    uid_t uid = 0;
    gid_t gid = 0;
};

/// Whom root becomes without --user.
constexpr auto default_user = "nobody";

/// The user called `name`, or with that number. Without a name: nobody if root asks, else who asks. Throws
/// std::runtime_error if there is no such user, or if it is somebody else and this is not root.
User find_user(const std::optional<std::string>& name);

/// Of the calling thread, a bit for each: 1 << CAP_BPF, say.
struct Capabilities {
    std::uint64_t permitted = 0;
    std::uint64_t effective = 0;
    std::uint64_t inheritable = 0;
};
constexpr std::uint64_t capability_bit(int capability) { return std::uint64_t{1} << static_cast<unsigned>(capability); }

/// capget(2) and capset(2), which glibc has no wrappers for. Throw std::runtime_error.
Capabilities read_capabilities();
void set_capabilities(const Capabilities& wanted);

/// Makes the process run as `user`, without any supplementary group (if it is root), for good (no_new_privs) and without
/// any capability but CAP_BPF, and without that too unless `needs_cap_bpf`, called when all the rest is done, says that
/// it must stay. Returns whether it stayed. Throws std::runtime_error. Of this process only the calling thread is changed: call it before others
/// are started.
bool drop_privileges(const User& user, const std::function<bool()>& needs_cap_bpf);

}  // namespace echo_server
