// SPDX-License-Identifier: BSD-2-Clause
#include "instances.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <system_error>

#include "netns.h"
#include "processes.h"

namespace {

constexpr std::string_view program_name = "echo_dispatch";

template <typename Info>
bool get_info(const Fd& fd, Info& info) {
    __u32 size = sizeof(info);
    return fd && bpf_obj_get_info_by_fd(fd.get(), &info, &size) == 0;
}

// Calls `visit` with the descriptor of each object of a kind. One that ends meanwhile is left out (ENOENT), and so is a
// link that is only just being made (EAGAIN).
template <typename Visit>
void for_each(int (*next_id)(__u32, __u32*), int (*open)(__u32), Visit visit) {
    __u32 id = 0;
    while (next_id(id, &id) == 0) {
        const Fd fd(open(id));
        if (fd)
            visit(fd);
        else if (errno != ENOENT && errno != EAGAIN)
            throw std::system_error(errno, std::generic_category(), "looking for BPF objects");
    }
    if (errno != ENOENT) throw std::system_error(errno, std::generic_category(), "looking for BPF objects");
}

// Of each program that is attached as sk_lookup: the inode of the network namespace.
std::map<__u32, std::uint64_t> attached_programs() {
    std::map<__u32, std::uint64_t> programs;
    for_each(bpf_link_get_next_id, bpf_link_get_fd_by_id, [&](const Fd& fd) {
        bpf_link_info info{};
        if (get_info(fd, info) && info.type == BPF_LINK_TYPE_NETNS && info.netns.attach_type == BPF_SK_LOOKUP)
            programs[info.prog_id] = info.netns.netns_ino;
    });
    return programs;
}

std::vector<MapHandle> maps_of(const Fd& program) {
    bpf_prog_info info{};
    if (!get_info(program, info)) return {};
    std::vector<__u32> ids(info.nr_map_ids);
    info = {};
    info.nr_map_ids = static_cast<__u32>(ids.size());
    info.map_ids = reinterpret_cast<__u64>(ids.data());
    if (!get_info(program, info)) return {};
    std::vector<MapHandle> maps;
    for (const auto id : ids) {
        MapHandle map{Fd(bpf_map_get_fd_by_id(id)), {}};
        if (!map.fd && errno != ENOENT) throw std::system_error(errno, std::generic_category(), "opening a BPF map");
        if (get_info(map.fd, map.info)) maps.push_back(std::move(map));
    }
    return maps;
}

}  // namespace

bool MapHandle::read(const void* key, std::size_t key_size, void* value, std::size_t value_size) const {
    // What holds one value a CPU would write more than value_size says.
    if (info.type != BPF_MAP_TYPE_ARRAY && info.type != BPF_MAP_TYPE_HASH && info.type != BPF_MAP_TYPE_SOCKMAP)
        return false;
    if (info.key_size != key_size) return false;
    std::vector<char> whole(info.value_size);
    if (bpf_map_lookup_elem(fd.get(), key, whole.data()) != 0) return false;
    std::memcpy(value, whole.data(), std::min(whole.size(), value_size));
    return true;
}

const MapHandle* Instance::map(std::string_view name) const {
    const auto found =
        std::find_if(maps.begin(), maps.end(), [&](const MapHandle& map) { return map.info.name == name; });
    return found == maps.end() ? nullptr : &*found;
}

std::uint64_t Instance::listener_cookie() const {
    std::uint64_t cookie = 0;
    const auto* socket = map("echo_socket");
    return socket != nullptr && socket->read(__u32{0}, cookie) ? cookie : 0;
}

std::optional<echo_instance> read_identity(const Instance& instance) {
    echo_instance identity{};
    const auto* map = instance.map("echo_instance");
    if (map == nullptr || !map->read(__u32{0}, identity)) return {};
    identity.version[sizeof(identity.version) - 1] = '\0';
    return identity;
}

bool in_this_pid_namespace(const echo_instance& identity) {
    return identity.pid_namespace != 0 && identity.pid_namespace == pid_namespace();
}

bool has_ended(const echo_instance& identity) {
    return in_this_pid_namespace(identity) && !open_process(static_cast<pid_t>(identity.pid), identity.process_start) &&
           errno == ESRCH;
}

std::vector<Instance> find_instances() {
    const auto here = CurrentNetns().inode;
    const auto attached = attached_programs();
    std::vector<Instance> instances;
    for_each(bpf_prog_get_next_id, bpf_prog_get_fd_by_id, [&](const Fd& fd) {
        bpf_prog_info info{};
        if (!get_info(fd, info) || info.type != BPF_PROG_TYPE_SK_LOOKUP || info.name != program_name) return;
        const auto link = attached.find(info.id);
        if (link != attached.end() && link->second != here) return;
        Instance instance{.program = info.id, .attached = link != attached.end(), .maps = maps_of(fd), .identity = {}};
        instance.identity = read_identity(instance);
        const bool drains_here = instance.identity && instance.identity->pid != 0 && instance.identity->netns == here;
        if (instance.attached || drains_here) instances.push_back(std::move(instance));
    });
    return instances;
}

bool other_programs_attached() {
    const CurrentNetns netns;
    __u32 flags = 0;
    __u32 count = 0;
    return bpf_prog_query(netns.fd.get(), BPF_SK_LOOKUP, 0, &flags, nullptr, &count) == 0 && count > 0;
}
