// SPDX-License-Identifier: BSD-2-Clause
#include "netns.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

CurrentNetns::CurrentNetns() : fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)) {
    struct stat status {};
    if (!fd || ::fstat(fd.get(), &status) != 0)
        throw std::system_error(errno, std::generic_category(), "opening /proc/thread-self/ns/net");
    inode = status.st_ino;
}

std::uint64_t pid_namespace() {
    struct stat status {};
    return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}
