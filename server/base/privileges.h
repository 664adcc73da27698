// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace echo_server {

/// The user that the process runs as once it serves.
struct User {
    std::string name;
    uid_t uid = 0;
    gid_t gid = 0;
};

/// The user that root becomes without --user.
constexpr auto default_user = "nobody";

/// Finds the user with this name or number. Without a name: default_user if the process is root, else its own user.
/// Throws std::runtime_error if there is no such user, or if a process that is not root names another user.
User find_user(const std::optional<std::string>& name);

/// The effective user of the process `pid`; nothing if /proc does not show it.
std::optional<User> user_of(pid_t pid);

/// The bit of a capability, such as CAP_BPF, in a set.
constexpr std::uint64_t capability_bit(int capability) { return std::uint64_t{1} << static_cast<unsigned>(capability); }

/// Makes effective what is permitted: the file of a program may give it capabilities that are permitted alone, as in
/// 'setcap cap_bpf=p'. (With 'ep', a program that may not have them can't be executed, and can't say why.) Throws
/// std::runtime_error.
void use_permitted_capabilities();

/// The process becomes `user`, if it is root, and keeps its capabilities but those by which root opens every file: from
/// now on it opens, makes and removes files with the rights of that user. To be called before other threads start.
/// Throws std::runtime_error.
void become(const User& user);

/// As long as it exists, the calling thread may look into processes of other users in /proc, and duplicate their
/// descriptors, if the process has been given CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
class SightOfProcesses {
 public:
    SightOfProcesses();
    ~SightOfProcesses();
    SightOfProcesses(const SightOfProcesses&) = delete;
    SightOfProcesses& operator=(const SightOfProcesses&) = delete;
};

/// Drops all capabilities, for good (no_new_privs). CAP_BPF is kept if `needs_cap_bpf`, called last, returns true;
/// returns whether it was. Changes the calling thread alone: to be called before other threads start. Throws
/// std::runtime_error.
bool drop_capabilities(const std::function<bool()>& needs_cap_bpf);

}  // namespace echo_server
