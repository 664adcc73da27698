// SPDX-License-Identifier: BSD-2-Clause
#include "pins.h"

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
#include <string_view>
#include <system_error>

#include "fd.h"
#include "file_rights.h"

namespace {

[[noreturn]] void fail(const std::string& what, int error, std::string_view hint = "") {
    throw std::runtime_error(fmt::format("{}: {}{}", what, std::generic_category().message(error), hint));
}

// 0 if `fd` is no map.
unsigned map_id(int fd) {
    bpf_map_info info{};
    __u32 size = sizeof(info);
    return fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0 ? info.id : 0;
}

Fd open_bpffs(const std::string& folder) {
    const auto what = fmt::format("pinning maps in {}", folder);
    Fd opened(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!opened)
        fail(what, errno,
             errno == ENOENT ? fmt::format("; make it with 'mkdir {0}' and 'sudo mount -t bpf none {0}'", folder) : "");
    struct statfs status {};
    if (::fstatfs(opened.get(), &status) != 0) fail(what, errno);
    if (status.f_type != BPF_FS_MAGIC)
        throw std::runtime_error(fmt::format(
            "{}: it is not on a BPF file system; 'sudo mount -t bpf none DIR' makes an empty folder DIR one", what));
    return opened;
}

// Pins `map` as `path` by way of another name, so that a pin which is there already is never missing. `owner` gets it if
// there is one. Returns 0, or the error.
int pin(int map, const std::string& path, const User* owner) {
    const auto fresh = path + "_new";
    ::unlink(fresh.c_str());
    if (bpf_obj_pin(map, fresh.c_str()) != 0) return errno;
    if ((owner == nullptr || ::lchown(fresh.c_str(), owner->uid, owner->gid) == 0) &&
        ::rename(fresh.c_str(), path.c_str()) == 0)
        return 0;
    const int error = errno;
    ::unlink(fresh.c_str());
    return error;
}

// In a folder that belongs to the user, root must not follow what that user may put there meanwhile, so it is done with the
// user's rights. Root's own serve only where the folder is not the user's.
int pin_for(const User& user, const Fd& folder, int map, const std::string& path) {
    {
        const FileRightsOf rights(user);
        const int error = pin(map, path, nullptr);
        if (error != EACCES && error != EPERM) return error;
    }
    struct stat status {};
    if (::fstat(folder.get(), &status) != 0) return errno;
    return status.st_uid == user.uid ? EACCES : pin(map, path, &user);
}

// What is pinned there, if the user may use it.
Fd open_pin(const User& user, const std::string& path) {
    const FileRightsOf rights(user);
    return Fd(bpf_obj_get(path.c_str()));
}

}  // namespace

Pins::~Pins() {
    for (const auto& one : pins_) {
        // Another server may have replaced them by its own.
        if (map_id(open_pin(owner_, path_of(one.name)).get()) != one.map_id) continue;
        if (!one.previous || pin_for(owner_, folder_, one.previous.get(), path_of(one.name)) != 0)
            ::unlinkat(folder_.get(), one.name.c_str(), 0);
    }
}

std::string Pins::path_of(const std::string& name) const {
    return fmt::format("/proc/self/fd/{}/{}", folder_.get(), name);
}

void Pins::add(const std::string& folder, const std::vector<Map>& maps, const User& owner) {
    folder_ = open_bpffs(folder);
    owner_ = owner;
    for (const auto& map : maps) {
        const auto path = path_of(map.name);
        Fd previous = open_pin(owner, path);
        if (const int error = pin_for(owner, folder_, map.fd, path); error != 0)
            fail(fmt::format("pinning {}/{} for user {}", folder, map.name, owner.name), error);
        was_there_ = was_there_ || previous;
        pins_.push_back({map.name, map_id(map.fd), std::move(previous)});
    }
}

void Pins::keep() {
    for (auto& one : pins_) one.previous = Fd();
}

bool Pins::reachable(const std::string& folder) { return ::access(folder.c_str(), X_OK) == 0; }

bool Pins::removable() const { return ::faccessat(folder_.get(), "", W_OK | X_OK, AT_EMPTY_PATH) == 0; }
