// SPDX-License-Identifier: BSD-2-Clause
#include "dispatcher.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <string_view>
#include <vector>

#include "echo_dispatch.skel.h"
#include "fd.h"

namespace {

std::string text_of(int error) { return std::generic_category().message(error); }

[[noreturn]] void fail(std::string_view what, int error) {
    throw std::runtime_error(fmt::format("{}: {}", what, text_of(error)));
}

int print_to_stderr(libbpf_print_level /*level*/, const char* format, va_list args) {
    return std::vfprintf(stderr, format, args);
}

void add_ports(int map, const PortSet& ports) {
    const auto keys = ports.to_vector();
    const std::vector<std::uint8_t> values(keys.size());
    auto count = static_cast<__u32>(keys.size());
    if (count == 0) return;
    const int error = bpf_map_update_batch(map, keys.data(), values.data(), &count, nullptr);
    if (error != 0) fail("opening ports in the map echo_ports", -error);
}

void remove_ports(int map, const PortSet& ports) {
    const auto keys = ports.to_vector();
    for (std::size_t done = 0; done < keys.size();) {
        auto count = static_cast<__u32>(keys.size() - done);
        const int error = bpf_map_delete_batch(map, keys.data() + done, &count, nullptr);
        done += count;
        if (error == 0) continue;
        // Somebody else was faster: the port is closed, which is all that was asked for.
        if (error != -ENOENT) fail("closing ports in the map echo_ports", -error);
        ++done;
    }
}

}  // namespace

void Dispatcher::DestroySkeleton::operator()(echo_dispatch_bpf* skeleton) const {
    echo_dispatch_bpf::destroy(skeleton);
}

Dispatcher::Dispatcher(int listener) {
    skeleton_.reset(echo_dispatch_bpf::open());
    if (!skeleton_) fail("opening the BPF program", errno);
    if (const int error = echo_dispatch_bpf::load(skeleton_.get()); error != 0) {
        // EINVAL is what a kernel says that does not know a type. The probes fail for other reasons too.
        const bool unknown = error == -EINVAL;
        const bool has_sk_lookup = !unknown || libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_LOOKUP, nullptr) != 0;
        const bool has_sockmap = !unknown || libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKMAP, nullptr) != 0;
        throw std::runtime_error(
            fmt::format("loading the BPF program: {}", explain_load_error(-error, has_sk_lookup, has_sockmap)));
    }

    const __u32 key = 0;
    const auto value = static_cast<__u64>(listener);
    const int error =
        bpf_map__update_elem(skeleton_->maps.echo_socket, &key, sizeof(key), &value, sizeof(value), BPF_ANY);
    if (error != 0) fail("putting the listening socket into the map echo_socket", -error);
}

Dispatcher::~Dispatcher() = default;

int Dispatcher::ports_fd() const { return bpf_map__fd(skeleton_->maps.echo_ports); }

PortSet Dispatcher::read_ports() const {
    constexpr __u32 room = 65536;
    std::vector<std::uint16_t> keys(room);
    std::vector<std::uint8_t> values(room);
    __u32 position = 0;
    __u32 count = room;
    const int error = bpf_map_lookup_batch(ports_fd(), nullptr, &position, keys.data(), values.data(), &count, nullptr);
    // ENOENT says that the end was reached.
    if (error != 0 && error != -ENOENT) fail("reading the map echo_ports", -error);
    PortSet ports;
    for (__u32 i = 0; i < count; ++i) ports.insert(keys[i]);
    return ports;
}

Dispatcher::Change Dispatcher::set_ports(const PortSet& wanted) {
    const PortSet open = read_ports();
    Change change{.added = wanted - open, .removed = open - wanted};
    add_ports(ports_fd(), change.added);
    remove_ports(ports_fd(), change.removed);
    return change;
}

void Dispatcher::attach() {
    // The thread's own: another thread of this process may have entered another namespace.
    const Fd netns(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!netns || ::fstat(netns.get(), &status) != 0) fail("opening /proc/thread-self/ns/net", errno);
    link_.reset(bpf_program__attach_netns(skeleton_->progs.echo_dispatch, netns.get()));
    if (!link_) fail("attaching the BPF program to the network namespace", errno);
    netns_inode_ = status.st_ino;
}

void set_libbpf_verbose(bool verbose) { libbpf_set_print(verbose ? print_to_stderr : nullptr); }

std::string explain_load_error(int error, bool has_sk_lookup, bool has_sockmap) {
    if (error == EPERM)
        return fmt::format("{}; CAP_BPF and CAP_NET_ADMIN are needed: start echo-server with sudo", text_of(error));
    if (error == ENOSYS) return "this kernel has no bpf(): one built with CONFIG_BPF_SYSCALL=y is needed";
    if (!has_sk_lookup)
        return "this kernel has no sk_lookup programs: Linux 5.9 or newer is needed, built with CONFIG_INET=y and "
               "CONFIG_BPF_SYSCALL=y";
    if (!has_sockmap)
        return "this kernel has no sockmap: one built with CONFIG_BPF_STREAM_PARSER=y is needed (from Linux 5.12 "
               "on, CONFIG_INET=y and CONFIG_BPF_SYSCALL=y suffice)";
    return fmt::format("{}; --verbose shows what libbpf says", text_of(error));
}
