// SPDX-License-Identifier: BSD-2-Clause
#include "base/file_rights.h"

#include <fmt/format.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "base/os.h"

namespace echo_server {
namespace {

// Not by glibc's setgroups(), which changes every thread of the process.
bool set_groups(const std::vector<gid_t>& groups) {
    return ::syscall(SYS_setgroups, groups.size(), groups.data()) == 0;
}

std::vector<gid_t> current_groups() {
    const int count = ::getgroups(0, nullptr);
    std::vector<gid_t> groups(count > 0 ? static_cast<std::size_t>(count) : 0);
    if (count > 0 && ::getgroups(count, groups.data()) != count) groups.clear();
    return groups;
}

// The capabilities that setfsuid(2) drops when root changes to another user; for root it drops none.
constexpr std::uint64_t about_files = capability_bit(CAP_CHOWN) | capability_bit(CAP_DAC_OVERRIDE) |
                                      capability_bit(CAP_DAC_READ_SEARCH) | capability_bit(CAP_FOWNER) |
                                      capability_bit(CAP_FSETID) | capability_bit(CAP_LINUX_IMMUTABLE) |
                                      capability_bit(CAP_MKNOD) | capability_bit(CAP_MAC_OVERRIDE);

}  // namespace

FileRightsOf::FileRightsOf(const User& user)
    : by_root_(::geteuid() == 0), groups_(current_groups()), capabilities_(read_capabilities()) {
    auto reduced = capabilities_;
    reduced.effective &= ~about_files;
    set_capabilities(reduced);
    if (!by_root_) return;
    const bool has_groups = groups_ == user.groups || set_groups(user.groups);
    const int error = errno;
    ::setfsgid(user.gid);
    ::setfsuid(user.uid);
    // Neither call reports an error. Asking for a number that does not exist returns the current number.
    const bool changed = ::setfsgid(static_cast<gid_t>(-1)) == static_cast<int>(user.gid) &&
                         ::setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(user.uid);
    if (has_groups && changed) return;
    restore();
    const int why = has_groups ? EPERM : error;
    fail(fmt::format("using files as user {}", user.name), why,
         why == EPERM ? "that needs CAP_SETUID and CAP_SETGID" : "");
}

FileRightsOf::~FileRightsOf() { restore(); }

void FileRightsOf::restore() noexcept {
    if (by_root_) {
        ::setfsuid(::geteuid());
        ::setfsgid(::getegid());
        if (current_groups() != groups_) set_groups(groups_);
    }
    try {
        set_capabilities(capabilities_);
    } catch (const std::runtime_error&) {
        // The thread has less than before then, which is safe.
    }
}

}  // namespace echo_server
