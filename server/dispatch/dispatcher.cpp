// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/dispatcher.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "echo_dispatch.skel.h"

namespace echo_server {
namespace {

constexpr unsigned family_bits = 32;  // of a key, before its address

// The kernel's verifier can print a megabyte: log it line by line.
int log_message(libbpf_print_level /*level*/, const char* format, va_list args) {
    char* text = nullptr;
    const int size = ::vasprintf(&text, format, args);
    if (size < 0) return size;
    const std::unique_ptr<char, decltype(&std::free)> owner(text, &std::free);
    log_text({text, static_cast<std::size_t>(size)});
    return size;
}

void load(echo_dispatch_bpf& skeleton) {
    const int error = echo_dispatch_bpf::load(&skeleton);
    if (error == 0) return;
    // EINVAL if the kernel lacks a program or map type. Probe only then: probes can fail for other reasons too.
    const bool unknown = error == -EINVAL;
    const bool has_sk_lookup = !unknown || libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_LOOKUP, nullptr) != 0;
    const bool has_sockmap = !unknown || libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKMAP, nullptr) != 0;
    fail("loading the BPF program", -error, hint_of_load(-error, has_sk_lookup, has_sockmap));
}

template <typename Element>
std::span<Element> share(const bpf_map* map) {
    const std::size_t count = bpf_map__max_entries(map);
    void* memory = ::mmap(nullptr, count * sizeof(Element), PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
    if (memory == MAP_FAILED) fail(fmt::format("mapping {} into memory", bpf_map__name(map)));
    return {static_cast<Element*>(memory), count};
}

template <typename Value>
void put_and_freeze(const bpf_map* map, const Value& value) {
    const __u32 key = 0;
    const int error = bpf_map__update_elem(map, &key, sizeof(key), &value, sizeof(value), BPF_ANY);
    if (error != 0) fail(fmt::format("writing the map {}", bpf_map__name(map)), -error);
    if (bpf_map_freeze(bpf_map__fd(map)) != 0) fail(fmt::format("freezing the map {}", bpf_map__name(map)));
}

// Inode 0 if there is no such file. Follows no symbolic link.
struct stat look(const std::string& path) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) status = {};
    return status;
}

[[noreturn]] void fail_to_pin(const std::string& path, int error) {
    fail(fmt::format("pinning {}", path), error,
         error == EACCES || error == EPERM ? "give that directory to the user of --user ('chown')" : "");
}

}  // namespace

echo_prefix to_key(const AddressPrefix& prefix) {
    const auto& address = prefix.address;
    const __u32 family = address.is_v4() ? AF_INET : AF_INET6;
    echo_prefix key{.bits = family_bits + prefix.length, .family = family, .address = {}};
    if (address.is_v4())
        std::ranges::copy(address.to_v4().to_bytes(), std::begin(key.address));
    else
        std::ranges::copy(address.to_v6().to_bytes(), std::begin(key.address));
    return key;
}

AddressPrefix to_prefix(const echo_prefix& key) {
    const unsigned length = key.bits - std::min(key.bits, family_bits);
    asio::ip::address_v6::bytes_type bytes;
    std::ranges::copy(key.address, bytes.begin());
    if (key.family == AF_INET) return {asio::ip::address_v4({bytes[0], bytes[1], bytes[2], bytes[3]}), length};
    return {asio::ip::address_v6(bytes), length};
}

PortSet read_ports(int map) {
    constexpr __u32 room = 65536;
    std::vector<std::uint16_t> keys(room);
    std::vector<std::uint8_t> values(room);
    __u32 position = 0;
    __u32 count = room;
    const int error = bpf_map_lookup_batch(map, nullptr, &position, keys.data(), values.data(), &count, nullptr);
    // ENOENT: the end was reached.
    if (error != 0 && error != -ENOENT) fail("reading the map echo_ports", -error);
    PortSet ports;
    for (__u32 i = 0; i < count; ++i) ports.insert(keys[i]);
    return ports;
}

std::vector<AddressPrefix> read_addresses(const MapHandle& map) {
    constexpr __u32 max_prefixes = 65536;
    std::vector<AddressPrefix> prefixes;
    echo_prefix key{};
    const void* previous = nullptr;
    // If a key is removed meanwhile, the kernel starts again at the first key: limit the number of steps.
    for (__u32 i = 0; i < std::min(map.info.max_entries, max_prefixes); ++i) {
        if (bpf_map_get_next_key(map.fd.get(), previous, &key) != 0) {
            if (errno != ENOENT) map.fail_to_read();
            break;
        }
        previous = &key;
        prefixes.push_back(to_prefix(key));
    }
    return prefixes;
}

Dispatcher::Dispatcher(const std::vector<AddressPrefix>& addresses, std::size_t threads)
    : skeleton_(echo_dispatch_bpf::open(), echo_dispatch_bpf::destroy) {
    if (!skeleton_) fail("opening the BPF program");
    skeleton_->rodata->restrict_addresses = addresses.empty() ? 0 : 1;
    auto* trie = skeleton_->maps.echo_addresses;
    bpf_map__set_max_entries(trie, std::max(bpf_map__max_entries(trie), static_cast<__u32>(addresses.size())));
    bpf_map__set_max_entries(skeleton_->maps.echo_counters, static_cast<__u32>(threads));
    load(*skeleton_);
    for (const auto& address : addresses) {
        const auto key = to_key(address);
        const __u8 value = 0;
        if (const int error = bpf_map__update_elem(trie, &key, sizeof(key), &value, sizeof(value), BPF_ANY); error != 0)
            fail("putting an address prefix into the map echo_addresses", -error);
    }
    for (const auto* map : {skeleton_->maps.echo_instance, skeleton_->maps.echo_counters})
        if (bpf_prog_bind_map(bpf_program__fd(skeleton_->progs.echo_dispatch), bpf_map__fd(map), nullptr) != 0)
            fail(fmt::format("binding {} to the BPF program", bpf_map__name(map)));
    counters_ = share<echo_counters>(skeleton_->maps.echo_counters);
    port_stats_ = share<echo_port_stats>(skeleton_->maps.echo_port_stats);
}

Dispatcher::~Dispatcher() {
    ::munmap(counters_.data(), counters_.size_bytes());
    ::munmap(port_stats_.data(), port_stats_.size_bytes());
}

void Dispatcher::reset_port_stats() {
    for (auto& stats : port_stats())
        for (const auto figure : port_figures) std::atomic_ref(stats.*figure).store(0, std::memory_order_relaxed);
}

void Dispatcher::show_left_out(const PortSet& taken, const PortSet& hosts) {
    for (std::size_t port = 0; port < port_stats_.size(); ++port) {
        const auto number = static_cast<std::uint16_t>(port);
        port_stats_[port].left_out = taken.contains(number)   ? ECHO_LEFT_OUT_TAKEN
                                     : hosts.contains(number) ? ECHO_LEFT_OUT_HOSTS
                                                              : ECHO_NOT_LEFT_OUT;
    }
}

// Frozen, because root trusts the contents.
Instance Dispatcher::publish(const echo_instance& identity) {
    put_and_freeze(skeleton_->maps.echo_instance, identity);
    bpf_prog_info info{};
    __u32 size = sizeof(info);
    const int program = bpf_program__fd(skeleton_->progs.echo_dispatch);
    if (bpf_obj_get_info_by_fd(program, &info, &size) != 0) fail("asking for the id of the BPF program");
    Instance server{.program = info.id, .maps = {}, .identity = identity};
    const bpf_map* map = nullptr;
    while ((map = bpf_object__next_map(skeleton_->obj, map)) != nullptr)
        server.add_map(Fd(::fcntl(bpf_map__fd(map), F_DUPFD_CLOEXEC, 0)));
    return server;
}

// Frozen, because a user with access to the map could put in another socket, and answer on all open ports.
void Dispatcher::set_listener(int listener) {
    put_and_freeze(skeleton_->maps.echo_socket, static_cast<__u64>(listener));
}

int Dispatcher::ports_fd() const { return bpf_map__fd(skeleton_->maps.echo_ports); }
int Dispatcher::socket_fd() const { return bpf_map__fd(skeleton_->maps.echo_socket); }

// Where the kernel wants CAP_BPF, even a lookup fails without it.
bool Dispatcher::may_use_maps() const {
    const std::uint16_t port = 0;
    std::uint8_t value = 0;
    return bpf_map_lookup_elem(ports_fd(), &port, &value) == 0 || errno != EPERM;
}

Dispatcher::Change Dispatcher::set_ports(const PortSet& wanted) {
    const PortSet open = ports();
    Change change{.added = wanted - open, .removed = open - wanted};
    change_ports(change.removed, change.added);
    return change;
}

void Dispatcher::change_ports(const PortSet& closed, const PortSet& opened) {
    const auto fail_to = [&](const char* change, int error) {
        fail(fmt::format("{} ports in the map echo_ports", change), error,
             error == EPERM && may_use_maps()
                 ? "another process has frozen the map: restart the server, which makes a new map"
                 : "");
    };
    auto keys = opened.to_vector();
    const std::vector<std::uint8_t> values(keys.size());
    auto count = static_cast<__u32>(keys.size());
    const int error = keys.empty() ? 0 : bpf_map_update_batch(ports_fd(), keys.data(), values.data(), &count, nullptr);
    if (error != 0) fail_to("opening", -error);

    keys = closed.to_vector();
    for (std::size_t done = 0; done < keys.size(); done += count) {
        count = static_cast<__u32>(keys.size() - done);
        const int result = bpf_map_delete_batch(ports_fd(), keys.data() + done, &count, nullptr);
        if (result != 0 && result != -ENOENT) fail_to("closing", -result);
        if (result != 0) ++count;  // that key is gone: its port is closed already
    }
}

Link Dispatcher::attach() {
    const Fd netns = open_netns();
    return checked(
        bpf_link_create(bpf_program__fd(skeleton_->progs.echo_dispatch), netns.get(), BPF_SK_LOOKUP, nullptr),
        "attaching the BPF program to the network namespace");
}

std::optional<bool> Dispatcher::is_attached(const Link& link) {
    if (!link) return {};
    bpf_link_info info{};
    __u32 size = sizeof(info);
    // A link that was detached still exists, but has no namespace.
    return bpf_obj_get_info_by_fd(link.get(), &info, &size) != 0 || info.netns.netns_ino != 0;
}

void Pins::check_folder(const std::string& folder) {
    const auto what = fmt::format("pinning maps in {}", folder);
    struct statfs status{};
    if (::statfs(folder.c_str(), &status) != 0)
        fail(what, errno,
             errno == ENOENT ? fmt::format("make it with 'mkdir {0}' and 'mount -t bpf none {0}'", folder) : "");
    if (status.f_type != BPF_FS_MAGIC)
        throw std::runtime_error(fmt::format(
            "{}: it is not on a BPF file system: 'mount -t bpf none DIR' mounts one on an empty directory DIR", what));
    if (::faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) != 0) fail_to_pin(folder, errno);
}

Pins::~Pins() {
    for (const auto& pin : pins_)
        if (look(pin.path_now).st_ino == pin.inode) ::unlink(pin.path_now.c_str());
}

void Pins::add(const std::string& folder, const Dispatcher& dispatcher) {
    check_folder(folder);
    // rename() keeps this order: if a start is killed between the two, the user still has the echo_ports of the running
    // server.
    for (const auto& [name, map] :
         {std::pair("echo_socket", dispatcher.socket_fd()), std::pair("echo_ports", dispatcher.ports_fd())}) {
        const auto path = fmt::format("{}/{}", folder, name);
        const auto fresh = path + "_new";  // a BPF file system has no dots in names
        ::unlink(fresh.c_str());           // left by a start that was killed
        // Before Linux 5.19 this needs CAP_BPF. Renaming never does.
        if (bpf_obj_pin(map, fresh.c_str()) != 0) fail_to_pin(path, errno);
        pins_.push_back({path, fresh, look(fresh).st_ino});
    }
}

bool Pins::rename() {
    bool replaced = false;
    // Check all before the first rename: a pin that was replaced can't be restored.
    for (const auto& pin : pins_) {
        const auto there = look(pin.path);
        if (S_ISDIR(there.st_mode)) fail_to_pin(pin.path, EISDIR);
        if (look(pin.path_now).st_ino != pin.inode)
            throw std::runtime_error(
                fmt::format("pinning {}: another echo-server that starts now pins there too; try again", pin.path));
        replaced = replaced || there.st_ino != 0;
    }
    for (auto& pin : pins_) {
        if (::renameat(AT_FDCWD, pin.path_now.c_str(), AT_FDCWD, pin.path.c_str()) != 0) fail_to_pin(pin.path, errno);
        pin.path_now = pin.path;
    }
    return replaced;
}

void set_libbpf_verbose(bool verbose) { libbpf_set_print(verbose ? log_message : nullptr); }

std::string_view hint_of_load(int error, bool has_sk_lookup, bool has_sockmap) {
    if (error == EPERM)
        return "CAP_BPF and CAP_NET_ADMIN are needed (before Linux 5.11 also 'ulimit -l unlimited'): start echo-server "
               "as root, or give it both (AmbientCapabilities= in a systemd unit, --cap-add for a container, see "
               "scripts/containers.md in the sources); if it has both, a seccomp filter or a security module refuses "
               "bpf()";
    if (error == ENOSYS) return "this kernel has no bpf(): one built with CONFIG_BPF_SYSCALL=y is needed";
    if (!has_sk_lookup)
        return "this kernel has no sk_lookup programs: Linux 5.10 or newer is needed, built with CONFIG_INET=y and "
               "CONFIG_BPF_SYSCALL=y";
    if (!has_sockmap)
        return "this kernel has no sockmap: one built with CONFIG_BPF_STREAM_PARSER=y is needed (from Linux 5.12 on, "
               "CONFIG_INET=y and CONFIG_BPF_SYSCALL=y suffice)";
    return "--verbose shows the messages of libbpf";
}

}  // namespace echo_server
