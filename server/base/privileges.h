// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace echo_server {

/// The user that the process runs as while it serves.
struct User {
    std::string name;
    uid_t uid = 0;
    gid_t gid = 0;
};

/// The user that root becomes without --user.
constexpr auto default_user = "nobody";

/// Finds the user with this name or number. By default it is default_user if the process is root, else the process's
/// own user. Throws std::runtime_error if there is no such user, or if it is another user and the process is not root.
User find_user(const std::optional<std::string>& name);

/// The effective user of the process `pid`, or nothing if /proc does not show the process.
std::optional<User> user_of(pid_t pid);

/// The bit of a capability, such as CAP_BPF, in a set.
constexpr std::uint64_t capability_bit(int capability) { return std::uint64_t{1} << static_cast<unsigned>(capability); }

/// Makes all permitted capabilities effective. A file can make them permitted only, as 'setcap cap_bpf=p' does: with
/// 'ep', exec itself fails where a capability is missing, without a message. Throws std::runtime_error.
void use_permitted_capabilities();

/// Changes the process to `user`, if it is root. Capabilities stay effective, except those with which root may open
/// every file: from now on the process uses files with the rights of `user`. To be called before other threads start.
/// Throws std::runtime_error.
void become(const User& user);

/// As long as it exists, and if CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE are permitted, the calling thread may read in
/// /proc about processes of other users, and duplicate their descriptors.
class SightOfProcesses {
 public:
    SightOfProcesses();
    ~SightOfProcesses();
    SightOfProcesses(const SightOfProcesses&) = delete;
    SightOfProcesses& operator=(const SightOfProcesses&) = delete;
};

/// Drops all capabilities forever (no_new_privs), but keeps CAP_BPF if `needs_cap_bpf`, which it calls when all others
/// are dropped, returns true. Returns whether CAP_BPF was kept. To be called before other threads start, as it changes
/// only the calling thread. Throws std::runtime_error.
bool drop_capabilities(const std::function<bool()>& needs_cap_bpf);

}  // namespace echo_server
