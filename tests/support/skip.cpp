// SPDX-License-Identifier: BSD-2-Clause
#include "support/skip.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

namespace echo_server {

namespace {

/// The exit code of a child that does this.
template <typename Step>
int code_of_child(Step step) {
    const auto child = ::fork();
    if (child == 0) std::_Exit(step());
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// A process that enters a mount namespace, even its own, gets the root of that namespace.
bool in_chroot() {
    return code_of_child([] {
               struct statx here{};
               struct statx root{};
               const int own = ::open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
               const bool known = ::statx(AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &here) == 0 &&
                                  ::setns(own, CLONE_NEWNS) == 0 &&
                                  ::statx(AT_FDCWD, "/", 0, STATX_INO | STATX_MNT_ID, &root) == 0;
               return known && (here.stx_mnt_id != root.stx_mnt_id || here.stx_ino != root.stx_ino) ? 1 : 0;
           }) == 1;
}

}  // namespace

bool possible_in_child(bool (*step)()) {
    const int error = code_of_child([step] { return step() ? 0 : errno; });
    if ((error != EPERM && error != EINVAL) || !in_chroot()) return true;
    ++skipped_tests;
    MESSAGE("skipped: in a chroot the kernel refuses a new user namespace or mount namespace ("
            << std::generic_category().message(error) << "): run this test outside of it");
    return false;
}

bool leave_user_namespace() { return ::unshare(CLONE_NEWUSER) == 0; }

bool leave_mount_namespace() {
    return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

}  // namespace echo_server
