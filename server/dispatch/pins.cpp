// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/pins.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <stdexcept>

#include "base/os.h"

namespace echo_server {
namespace {

// Nothing (inode 0) if there is no file of that name. A link is a file here.
struct stat look(const std::string& path) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) status = {};
    return status;
}

[[noreturn]] void fail_to_pin(const std::string& path, int error) {
    fail(fmt::format("pinning {}", path), error,
         error == EACCES || error == EPERM ? "let the user of --user own that folder ('chown')" : "");
}

}  // namespace

void Pins::check_folder(const std::string& folder) {
    const auto what = fmt::format("pinning maps in {}", folder);
    struct statfs status{};
    if (::statfs(folder.c_str(), &status) != 0)
        fail(what, errno,
             errno == ENOENT ? fmt::format("make it with 'mkdir {0}' and 'mount -t bpf none {0}'", folder) : "");
    if (status.f_type != BPF_FS_MAGIC)
        throw std::runtime_error(fmt::format(
            "{}: it is not on a BPF file system; 'mount -t bpf none DIR' makes an empty folder DIR one", what));
    if (::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) != 0) fail_to_pin(folder, errno);
}

Pins::~Pins() {
    for (const auto& pin : pins_)
        if (look(pin.path_now).st_ino == pin.inode) ::unlink(pin.path_now.c_str());
}

void Pins::add(const std::string& folder, const std::vector<std::pair<std::string, int>>& maps) {
    check_folder(folder);
    for (const auto& [name, map] : maps) {
        const auto path = fmt::format("{}/{}", folder, name);
        const auto fresh = path + "_new";  // a BPF file system has no dots in names
        ::unlink(fresh.c_str());           // a start that was killed has left it
        // Before Linux 5.19 this needs CAP_BPF, and renaming does not.
        if (bpf_obj_pin(map, fresh.c_str()) != 0) fail_to_pin(path, errno);
        pins_.push_back({path, fresh, look(fresh).st_ino});
    }
}

bool Pins::rename() {
    bool replaced = false;
    // Check all before the first rename: a pin that was replaced can't be put back.
    for (const auto& pin : pins_) {
        const auto there = look(pin.path);
        if (S_ISDIR(there.st_mode)) fail_to_pin(pin.path, EISDIR);
        if (look(pin.path_now).st_ino != pin.inode)
            throw std::runtime_error(fmt::format("pinning {}: another start pins there; try again", pin.path));
        replaced = replaced || there.st_ino != 0;
    }
    for (auto& pin : pins_) {
        if (::renameat(AT_FDCWD, pin.path_now.c_str(), AT_FDCWD, pin.path.c_str()) != 0) fail_to_pin(pin.path, errno);
        pin.path_now = pin.path;
    }
    return replaced;
}

}  // namespace echo_server
