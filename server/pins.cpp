// SPDX-License-Identifier: BSD-2-Clause
#include "pins.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/fsuid.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "fd.h"

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

/// Files are made and replaced with a user's rights for as long as it lives; the other capabilities stay.
class FileRightsOf {
 public:
    explicit FileRightsOf(const User& user) : gid_(::setfsgid(user.gid)), uid_(::setfsuid(user.uid)) {}
    ~FileRightsOf() {
        ::setfsuid(static_cast<uid_t>(uid_));
        ::setfsgid(static_cast<gid_t>(gid_));
    }
    FileRightsOf(const FileRightsOf&) = delete;
    FileRightsOf& operator=(const FileRightsOf&) = delete;

 private:
    int gid_;
    int uid_;
};

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
// user's rights. Where they do not suffice, nobody but root can put anything there.
int pin_for(const User& user, int map, const std::string& path) {
    {
        const FileRightsOf rights(user);
        const int error = pin(map, path, nullptr);
        if (error != EACCES && error != EPERM) return error;
    }
    return pin(map, path, &user);
}

}  // namespace

Pins::~Pins() {
    for (const auto& one : pins_) {
        // Another server may have replaced them by its own.
        if (map_id(Fd(bpf_obj_get(one.path.c_str())).get()) != one.map_id) continue;
        if (!one.previous || pin_for(owner_, one.previous.get(), one.path) != 0) ::unlink(one.path.c_str());
    }
}

void Pins::add(const std::string& folder, const std::vector<Map>& maps, const User& owner) {
    const Fd opened = open_bpffs(folder);
    folder_ = folder;
    owner_ = owner;
    for (const auto& map : maps) {
        const auto path = fmt::format("{}/{}", folder, map.name);
        Fd previous(bpf_obj_get(path.c_str()));
        const int error = pin_for(owner, map.fd, fmt::format("/proc/self/fd/{}/{}", opened.get(), map.name));
        if (error != 0) fail(fmt::format("pinning {} for user {}", path, owner.name), error);
        pins_.push_back({path, map_id(map.fd), std::move(previous)});
        was_there_ = was_there_ || pins_.back().previous;
    }
}

void Pins::keep() {
    for (auto& one : pins_) one.previous = Fd();
}

bool Pins::reachable() const { return ::access(folder_.c_str(), X_OK) == 0; }

bool Pins::removable() const { return ::access(folder_.c_str(), W_OK | X_OK) == 0; }
