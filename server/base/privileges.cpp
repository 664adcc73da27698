// SPDX-License-Identifier: BSD-2-Clause
#include "base/privileges.h"

#include <fmt/format.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "base/os.h"
#include "base/text.h"

namespace echo_server {
namespace {

// With these, root may open every file. The start works without them: it must open only files that a SIGHUP, which has
// the rights of the user, can open again.
constexpr std::uint64_t about_files = capability_bit(CAP_CHOWN) | capability_bit(CAP_DAC_OVERRIDE) |
                                      capability_bit(CAP_DAC_READ_SEARCH) | capability_bit(CAP_FOWNER) |
                                      capability_bit(CAP_FSETID) | capability_bit(CAP_MAC_OVERRIDE);

// capget(2) and capset(2), of the calling thread; glibc has no wrappers.
std::uint64_t permitted_capabilities() {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
    if (::syscall(SYS_capget, &header, data.data()) != 0) fail("reading the capabilities");
    return data[0].permitted | static_cast<std::uint64_t>(data[1].permitted) << 32U;
}

void set_capabilities(std::uint64_t permitted, std::uint64_t effective) {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    const auto half = [&](unsigned shift) {
        return __user_cap_data_struct{.effective = static_cast<__u32>(effective >> shift),
                                      .permitted = static_cast<__u32>(permitted >> shift),
                                      .inheritable = 0};
    };
    const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{half(0), half(32)};
    // A capability that is not inheritable can't be ambient either.
    if (::syscall(SYS_capset, &header, data.data()) != 0) fail("changing the capabilities");
}

// Makes those of `wanted` effective that are permitted, and no others.
void use_capabilities(std::uint64_t wanted) {
    const auto permitted = permitted_capabilities();
    set_capabilities(permitted, permitted & wanted);
}

void change_ids(const User& user) {
    const auto refuse = [&](int error = errno) {
        fail(fmt::format("becoming user {}", user.name), error,
             error == EINVAL  ? "this user namespace does not have that user: start echo-server outside of it"
             : error == EPERM ? "it needs CAP_SETUID and CAP_SETGID: grant both (--cap-add for a container), set "
                                "DynamicUser=yes or User= in a systemd unit, or stay root with --user root"
                              : "");
    };
    // Without this, a change from root to another user drops all capabilities.
    if (::prctl(PR_SET_KEEPCAPS, 1) != 0) refuse();
    if (user.uid != ::geteuid() || user.gid != ::getegid() || ::getgroups(0, nullptr) != 0) {
        if (::setgroups(0, nullptr) != 0 && user.uid != 0) refuse();
        if (::setresgid(user.gid, user.gid, user.gid) != 0) refuse();
        if (::setresuid(user.uid, user.uid, user.uid) != 0) refuse();
    }
    ::prctl(PR_SET_KEEPCAPS, 0);
}

}  // namespace

User find_user(const std::optional<std::string>& name) {
    const auto self = ::geteuid();
    const std::string wanted = name.value_or(self == 0 ? default_user : std::to_string(self));
    const auto number = parse_number<uid_t>(wanted);
    const auto* entry = ::getpwnam(wanted.c_str());
    if (entry == nullptr && number) entry = ::getpwuid(*number);
    // setresuid(2) takes the highest number for "no change".
    if (entry == nullptr && (!number || *number == std::numeric_limits<uid_t>::max()))
        throw std::runtime_error(
            fmt::format("there is no user {}: choose another one, or a number, with --user", quote(wanted)));
    User user{.name = wanted, .uid = number.value_or(0), .gid = number.value_or(0)};
    if (entry != nullptr) user = {entry->pw_name, entry->pw_uid, entry->pw_gid};
    if (self == 0) return user;
    if (user.uid != self)
        throw std::runtime_error(
            fmt::format("becoming user {} needs root: start echo-server as root, or without --user", quote(wanted)));
    user.gid = ::getegid();
    return user;
}

std::optional<User> user_of(pid_t pid) {
    // Not the owner of /proc/PID, which is root if the process has changed its user. In the lines "Uid:" and "Gid:" the
    // second number is the effective one (proc(5)).
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    User user;
    bool found = false;
    for (std::string line; std::getline(status, line);) {
        found |= std::sscanf(line.c_str(), "Uid: %*u %u", &user.uid) == 1;
        std::sscanf(line.c_str(), "Gid: %*u %u", &user.gid);
    }
    if (!found) return {};
    const auto* entry = ::getpwuid(user.uid);
    user.name = entry != nullptr ? entry->pw_name : std::to_string(user.uid);
    return user;
}

void use_permitted_capabilities() { use_capabilities(~std::uint64_t{0}); }

void become(const User& user) {
    if (::geteuid() == 0) change_ids(user);
    use_capabilities(~about_files);
}

// CAP_SYS_PTRACE is not in about_files, so it is effective already.
SightOfProcesses::SightOfProcesses() { use_capabilities(~about_files | capability_bit(CAP_DAC_READ_SEARCH)); }

SightOfProcesses::~SightOfProcesses() {
    try {
        use_capabilities(~about_files);
    } catch (const std::runtime_error&) {
        // drop_capabilities() drops them later, with all others.
    }
}

bool drop_capabilities(const std::function<bool()>& needs_cap_bpf) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("setting no_new_privs");
    // 0 if the server has CAP_SYS_ADMIN instead of CAP_BPF.
    const auto cap_bpf = permitted_capabilities() & capability_bit(CAP_BPF);
    set_capabilities(cap_bpf, 0);
    const auto kept = needs_cap_bpf() ? cap_bpf : 0;
    set_capabilities(kept, kept);
    return kept != 0;
}

}  // namespace echo_server
