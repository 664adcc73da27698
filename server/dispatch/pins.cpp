// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/pins.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "base/fd.h"
#include "base/file_rights.h"
#include "base/os.h"
#include "base/text.h"

namespace echo_server {
namespace {

Fd open_bpffs(const std::string& folder) {
    const auto what = fmt::format("pinning maps in {}", folder);
    Fd opened(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!opened)
        fail(what, errno,
             errno == ENOENT ? fmt::format("make it with 'mkdir {0}' and 'mount -t bpf none {0}'", folder) : "");
    struct statfs status{};
    if (::fstatfs(opened.get(), &status) != 0) fail(what);
    if (status.f_type != BPF_FS_MAGIC)
        throw std::runtime_error(fmt::format(
            "{}: it is not on a BPF file system; 'mount -t bpf none DIR' makes an empty folder DIR one", what));
    return opened;
}

// The name of a pin before it gets the name of its map, and while it is removed. No other process uses this name: in
// its PID namespace a PID means one process. (A dot would be usual, but a BPF file system has no dots in names.)
std::string own_name(std::string_view map, pid_t pid = ::getpid()) {
    return fmt::format("{}_new_{}_{}", map, pid_namespace(), pid);
}

// Whether pinning for `user` needs root's rights. As root, a symlink planted by the folder's owner would be followed;
// so pin with the owner's rights, and as root only in the folder of another user, where `user` may not write or,
// because of its sticky bit, may not replace files of others.
bool needs_root(const Fd& folder, const User& user) {
    struct stat status{};
    if (::fstat(folder.get(), &status) != 0 || status.st_uid == user.uid) return false;
    const FileRightsOf rights(user);
    return (status.st_mode & S_ISVTX) != 0 ||
           ::faccessat(folder.get(), "", W_OK | X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0;
}

// The file with that name, even a link; its inode is 0 if there is none.
struct stat look(const Fd& folder, const std::string& name) {
    struct stat status{};
    if (::fstatat(folder.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) status = {};
    return status;
}

}  // namespace

void Pins::check_folder(const std::string& folder) { open_bpffs(folder); }

Pins::~Pins() {
    for (const auto& pin : pins_) {
        const auto& name = pin.name;
        const auto own = own_name(name);
        const auto rename = [&](const std::string& from, const std::string& to) {
            return ::renameat2(folder_.get(), from.c_str(), folder_.get(), to.c_str(), RENAME_NOREPLACE) == 0;
        };
        // Another server may put its pin there at any moment: only under our own name a pin is surely ours.
        if (look(folder_, name).st_ino == pin.inode && rename(name, own) && look(folder_, own).st_ino != pin.inode)
            rename(own, name);
        ::unlinkat(folder_.get(), own.c_str(), 0);
    }
}

void Pins::fail(std::string_view name, int error) const {
    echo_server::fail(fmt::format("pinning {}/{} for user {}", folder_name_, name, owner_.name), error);
}

std::string Pins::path_of(std::string_view name) const {
    return fmt::format("/proc/self/fd/{}/{}", folder_.get(), name);
}

void Pins::add(const std::string& folder, const std::vector<Map>& maps, const User& owner) {
    folder_ = open_bpffs(folder);
    folder_name_ = folder;
    owner_ = owner;
    with_roots_rights_ = needs_root(folder_, owner);
    std::optional<FileRightsOf> rights;
    if (!with_roots_rights_) rights.emplace(owner);
    remove_left_behind(maps);
    for (const auto& map : maps) {
        const auto own = own_name(map.name);
        ::unlinkat(folder_.get(), own.c_str(), 0);
        if (bpf_obj_pin(map.fd, path_of(own).c_str()) != 0) fail(map.name, errno);
        pins_.push_back({map.name, look(folder_, own).st_ino});
        if (with_roots_rights_ &&
            ::fchownat(folder_.get(), own.c_str(), owner.uid, owner.gid, AT_SYMLINK_NOFOLLOW) != 0)
            fail(map.name, errno);
    }
}

// A server that was killed before it could rename or remove its pins leaves them.
void Pins::remove_left_behind(const std::vector<Map>& maps) const {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(path_of(""), error), end; !error && entry != end;
         entry.increment(error)) {
        const auto name = entry->path().filename().string();
        const auto pid = parse_number<pid_t>(std::string_view(name).substr(name.rfind('_') + 1));
        const auto is_its_own = [&](const Map& map) { return name == own_name(map.name, *pid); };
        if (pid && std::ranges::any_of(maps, is_its_own) && ::kill(*pid, 0) != 0 && errno == ESRCH)
            ::unlinkat(folder_.get(), name.c_str(), 0);
    }
}

void Pins::publish() {
    if (published_) return;
    published_ = true;
    // Check before the first rename: a replaced pin can't be put back.
    for (const auto& pin : pins_) {
        const auto there = look(folder_, pin.name);
        if (S_ISDIR(there.st_mode)) fail(pin.name, EISDIR);
        replaced_existing_ = replaced_existing_ || S_ISREG(there.st_mode);
    }
    for (const auto& pin : pins_)
        if (::renameat(folder_.get(), own_name(pin.name).c_str(), folder_.get(), pin.name.c_str()) != 0)
            fail(pin.name, errno);
}

void Pins::publish_as_root() {
    if (with_roots_rights_) publish();
}

bool Pins::reachable(const std::string& folder) { return ::access(folder.c_str(), X_OK) == 0; }

bool Pins::removable() const { return ::faccessat(folder_.get(), "", W_OK | X_OK, AT_EMPTY_PATH) == 0; }

}  // namespace echo_server
