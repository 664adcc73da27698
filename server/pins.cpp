// SPDX-License-Identifier: BSD-2-Clause
#include "pins.h"

#include <bpf/bpf.h>
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

void check_is_bpffs(const std::string& folder) {
    const auto what = fmt::format("pinning maps in {}", folder);
    struct statfs status {};
    if (::statfs(folder.c_str(), &status) != 0)
        fail(what, errno, fmt::format("; make it with 'mkdir {0}' and 'sudo mount -t bpf none {0}'", folder));
    if (status.f_type != BPF_FS_MAGIC)
        throw std::runtime_error(
            fmt::format("{}: it is not on a BPF file system; 'sudo mount -t bpf none {}' makes it one", what, folder));
}

}  // namespace

Pins::~Pins() {
    // Another server may have replaced them by its own.
    for (const auto& pin : pins_)
        if (map_id(Fd(bpf_obj_get(pin.path.c_str())).get()) == pin.map_id) ::unlink(pin.path.c_str());
}

void Pins::add(const std::string& folder, const std::vector<Map>& maps, const User& owner) {
    check_is_bpffs(folder);
    folder_ = folder;
    for (const auto& map : maps) {
        const auto path = fmt::format("{}/{}", folder, map.name);
        // By way of another name, so that there is one all the time.
        const auto fresh = path + "_new";
        ::unlink(fresh.c_str());
        if (bpf_obj_pin(map.fd, fresh.c_str()) != 0) fail(fmt::format("pinning {}", path), errno);
        if (::chown(fresh.c_str(), owner.uid, owner.gid) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0) {
            const int error = errno;
            ::unlink(fresh.c_str());
            fail(fmt::format("pinning {} for user {}", path, owner.name), error);
        }
        pins_.push_back({path, map_id(map.fd)});
    }
}

bool Pins::removable() const { return ::access(folder_.c_str(), W_OK | X_OK) == 0; }
