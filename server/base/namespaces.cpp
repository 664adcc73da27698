// SPDX-License-Identifier: BSD-2-Clause
#include "base/namespaces.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdexcept>

#include "base/error.h"

namespace echo_server {

CurrentNetns::CurrentNetns() : fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    struct stat status{};
    if (!fd || ::fstat(fd.get(), &status) != 0) fail("opening /proc/thread-self/ns/net");
    inode = status.st_ino;
}

namespace {

std::uint64_t inode_of(const char* path) {
    struct stat status{};
    return ::stat(path, &status) == 0 ? status.st_ino : 0;
}

}  // namespace

void check_proc() {
    if (::access("/proc/thread-self/ns/net", F_OK) == 0) return;
    throw std::runtime_error(
        "looking for /proc/thread-self: /proc is not mounted, or it is that of another PID namespace: mount it "
        "('mount -t proc proc /proc')");
}

bool in_initial_user_namespace() {
    constexpr std::uint64_t initial = 0xEFFFFFFD;  // PROC_USER_INIT_INO in the kernel
    const auto inode = inode_of("/proc/self/ns/user");
    return inode == 0 || inode == initial;  // without the file the kernel has no user namespaces
}

std::uint64_t pid_namespace() { return inode_of("/proc/self/ns/pid"); }

std::uint64_t time_namespace() { return inode_of("/proc/self/ns/time"); }

}  // namespace echo_server
