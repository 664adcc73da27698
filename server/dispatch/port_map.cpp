// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/port_map.h"

#include <bpf/bpf.h>

#include <cerrno>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace echo_server {
namespace {

[[noreturn]] void fail_to_change(int map, std::string_view what, int error) {
    const std::uint16_t port = 0;
    std::uint8_t value = 0;
    // A process that lacks CAP_BPF, where the kernel wants that, may not look either.
    const bool may_look = bpf_map_lookup_elem(map, &port, &value) == 0 || errno != EPERM;
    fail(what, error,
         error == EPERM && may_look
             ? "somebody who may write to the map has frozen it: restart the server, which makes a new one"
             : "");
}

}  // namespace

PortSet read_ports(int map) {
    constexpr __u32 room = 65536;
    std::vector<std::uint16_t> keys(room);
    std::vector<std::uint8_t> values(room);
    __u32 position = 0;
    __u32 count = room;
    const int error = bpf_map_lookup_batch(map, nullptr, &position, keys.data(), values.data(), &count, nullptr);
    // ENOENT says that the end was reached.
    if (error != 0 && error != -ENOENT) fail("reading the map echo_ports", -error);
    PortSet ports;
    for (__u32 i = 0; i < count; ++i) ports.insert(keys[i]);
    return ports;
}

void add_ports(int map, const PortSet& ports) {
    const auto keys = ports.to_vector();
    const std::vector<std::uint8_t> values(keys.size());
    auto count = static_cast<__u32>(keys.size());
    if (count == 0) return;
    const int error = bpf_map_update_batch(map, keys.data(), values.data(), &count, nullptr);
    if (error != 0) fail_to_change(map, "opening ports in the map echo_ports", -error);
}

void remove_ports(int map, const PortSet& ports) {
    const auto keys = ports.to_vector();
    for (std::size_t done = 0; done < keys.size();) {
        auto count = static_cast<__u32>(keys.size() - done);
        const int error = bpf_map_delete_batch(map, keys.data() + done, &count, nullptr);
        done += count;
        if (error == 0) continue;
        if (error != -ENOENT) fail_to_change(map, "closing ports in the map echo_ports", -error);
        ++done;  // somebody else has deleted that key: the port is closed, which was the aim
    }
}

}  // namespace echo_server
