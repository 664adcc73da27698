// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/instances.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <span>

namespace echo_server {
namespace {

constexpr std::string_view program_name = "echo_dispatch";

// Others can load a program of that name, with maps of any size: limit what is read.
constexpr std::size_t max_value_size = 4096;
constexpr std::size_t max_maps = 64;

// A map that 'status' reads, as this version makes it.
struct Shape {
    std::string_view name;
    __u32 type;
    __u32 key_size;
    __u32 value_size;
};
constexpr std::array shapes{
    Shape{"echo_ports", BPF_MAP_TYPE_HASH, sizeof(__u16), 1},
    Shape{"echo_addresses", BPF_MAP_TYPE_LPM_TRIE, sizeof(echo_prefix), 1},
    Shape{"echo_drops", BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(__u64)},
    Shape{"echo_port_stats", BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(echo_port_stats)},
    Shape{"echo_counters", BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(echo_counters)},
};

// False if the object is gone. Links of other kinds can fail for other reasons too, for example a device that is gone:
// throws only errors that our own objects can have.
template <typename Info>
bool get_info(const Fd& fd, Info& info) {
    __u32 size = sizeof(info);
    if (fd && bpf_obj_get_info_by_fd(fd.get(), &info, &size) == 0) return true;
    if (errno == ENOMEM || errno == EPERM || errno == EACCES) fail("asking about a BPF object");
    return false;
}

// Calls `visit` with the descriptor of each object of a kind. Skips an object that ends meanwhile (ENOENT), and a
// link that is not ready yet (EAGAIN).
template <typename Visit>
void for_each(int (*next_id)(__u32, __u32*), int (*open)(__u32), Visit visit) {
    for (__u32 id = 0; next_id(id, &id) == 0;) {
        const Fd fd(open(id));
        if (fd)
            visit(fd);
        else if (errno != ENOENT && errno != EAGAIN)
            break;
    }
    if (errno != ENOENT)
        fail("looking for echo-servers among the BPF programs", errno,
             errno == EPERM ? "that needs CAP_SYS_ADMIN: start it as root" : "");
}

// The network namespace (inode) of each program with an sk_lookup link; 0 if it was detached.
std::map<__u32, std::uint64_t> linked_programs() {
    std::map<__u32, std::uint64_t> programs;
    for_each(bpf_link_get_next_id, bpf_link_get_fd_by_id, [&](const Fd& fd) {
        bpf_link_info info{};
        if (get_info(fd, info) && info.type == BPF_LINK_TYPE_NETNS && info.netns.attach_type == BPF_SK_LOOKUP)
            programs[info.prog_id] = info.netns.netns_ino;
    });
    return programs;
}

}  // namespace

bool MapHandle::read(__u32 key, void* value, std::size_t size) const {
    // For other types, the kernel could write more than value_size. Of a sockmap it reads only 8-byte values.
    const bool readable =
        info.type == BPF_MAP_TYPE_ARRAY || (info.type == BPF_MAP_TYPE_SOCKMAP && info.value_size == sizeof(__u64));
    if (!readable || info.value_size > max_value_size) return false;
    std::vector<char> whole(info.value_size);
    if (bpf_map_lookup_elem(fd.get(), &key, whole.data()) != 0) {
        if (errno == ENOENT) return false;
        fail_to_read();
    }
    std::memcpy(value, whole.data(), std::min(whole.size(), size));
    return true;
}

void MapHandle::fail_to_read(int error) const { fail(fmt::format("reading the BPF map {}", info.name), error); }

void Instance::add_map(Fd map) {
    MapHandle handle{std::move(map), {}};
    if (get_info(handle.fd, handle.info))
        maps.push_back(std::move(handle));
    else if (errno != ENOENT)
        fail("opening a BPF map");
}

const MapHandle* Instance::map(std::string_view name) const {
    const auto found = std::ranges::find_if(maps, [&](const MapHandle& map) { return map.info.name == name; });
    return found == maps.end() ? nullptr : &*found;
}

bool Instance::is_of_this_version() const {
    return std::ranges::all_of(shapes, [&](const Shape& shape) {
        const auto* found = map(shape.name);
        return found != nullptr && found->info.type == shape.type && found->info.key_size == shape.key_size &&
               found->info.value_size == shape.value_size;
    });
}

std::uint64_t Instance::listener_cookie() const {
    std::uint64_t cookie = 0;
    const auto* socket = map("echo_socket");
    return socket != nullptr && socket->read(0, &cookie, sizeof(cookie)) ? cookie : 0;
}

Instance::State state_of(const Instance& server, std::optional<bool> attached) {
    const bool has_socket = server.listener_cookie() != 0;
    if (attached.value_or(false)) return has_socket ? Instance::State::serving : Instance::State::socketless;
    return attached && has_socket ? Instance::State::detached : Instance::State::draining;
}

std::optional<echo_instance> read_identity(const Instance& server) {
    echo_instance identity{};
    const auto* map = server.map("echo_instance");
    if (map == nullptr || !map->read(0, &identity, sizeof(identity)) || identity.pid == 0) return {};
    identity.version[sizeof(identity.version) - 1] = '\0';
    return identity;
}

bool in_this_pid_namespace(const echo_instance& identity) {
    return identity.pid_namespace != 0 && identity.pid_namespace == inode_of_namespace("pid");
}

bool has_ended(const echo_instance& identity) {
    return in_this_pid_namespace(identity) && !open_process(static_cast<pid_t>(identity.pid), identity.process_start) &&
           errno == ESRCH;
}

bool is_running(const Instance& server) {
    return server.state != Instance::State::draining && !has_ended(server.identity);
}

std::vector<Instance> find_instances() {
    const auto here = inode_of_namespace("net");
    const auto linked = linked_programs();
    std::vector<Instance> servers;
    for_each(bpf_prog_get_next_id, bpf_prog_get_fd_by_id, [&](const Fd& fd) {
        std::array<__u32, max_maps> maps{};
        bpf_prog_info info{};
        info.nr_map_ids = maps.size();
        info.map_ids = reinterpret_cast<__u64>(maps.data());
        if (!get_info(fd, info) || info.type != BPF_PROG_TYPE_SK_LOOKUP || info.name != program_name) return;
        std::optional<bool> attached;
        if (const auto found = linked.find(info.id); found != linked.end()) {
            attached = found->second != 0;
            if (*attached && found->second != here) return;
        }
        Instance server{.program = info.id, .maps = {}, .identity = {}};
        for (const auto id : std::span(maps).first(std::min<std::size_t>(info.nr_map_ids, max_maps)))
            server.add_map(Fd(bpf_map_get_fd_by_id(id)));
        const auto identity = read_identity(server);
        if (!identity) return;
        server.identity = *identity;
        server.state = state_of(server, attached);
        if (server.attached() || identity->netns == here) servers.push_back(std::move(server));
    });
    return servers;
}

std::size_t attached_programs() {
    const Fd netns = open_netns();
    __u32 flags = 0;
    __u32 count = 0;
    return bpf_prog_query(netns.get(), BPF_SK_LOOKUP, 0, &flags, nullptr, &count) == 0 ? count : 0;
}

}  // namespace echo_server
