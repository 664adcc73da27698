// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/port_map.h"

#include <bpf/bpf.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace echo_server {

namespace {

// Of a change that was refused.
[[noreturn]] void fail_to_change(int map, std::string_view what, int error) {
    const std::uint16_t port = 0;
    std::uint8_t value = 0;
    // Without CAP_BPF, where that is needed, a look would be refused as well.
    const bool may_look = bpf_map_lookup_elem(map, &port, &value) == 0 || errno != EPERM;
    fail(what, error,
         error == EPERM && may_look
             ? "somebody who may write to the map has frozen it: restart the server, which makes a new one"
             : "");
}

// Linux takes many keys of a hash in one call since 5.6. Before, it knows no such call, or not for every kind of map.
bool lacks_batches(int error) {
    constexpr int not_supported = 524;  // ENOTSUPP of the kernel, which no header for programs names
    return error == -EINVAL || error == -not_supported;
}

PortSet read_ports_singly(int map) {
    PortSet ports;
    std::uint16_t port = 0;
    int error = bpf_map_get_next_key(map, nullptr, &port);
    for (; error == 0; error = bpf_map_get_next_key(map, &port, &port)) ports.insert(port);
    if (error != -ENOENT) fail("reading the map echo_ports", -error);
    return ports;
}

void add_ports_singly(int map, const std::vector<std::uint16_t>& ports) {
    const std::uint8_t value = 0;
    for (const auto port : ports) {
        const int error = bpf_map_update_elem(map, &port, &value, BPF_ANY);
        if (error != 0) fail_to_change(map, "opening ports in the map echo_ports", -error);
    }
}

}  // namespace

PortSet read_ports(int map) {
    constexpr __u32 room = 65536;
    std::vector<std::uint16_t> keys(room);
    std::vector<std::uint8_t> values(room);
    __u32 position = 0;
    __u32 count = room;
    const int error = bpf_map_lookup_batch(map, nullptr, &position, keys.data(), values.data(), &count, nullptr);
    if (lacks_batches(error)) return read_ports_singly(map);
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
    if (lacks_batches(error)) return add_ports_singly(map, keys);
    if (error != 0) fail_to_change(map, "opening ports in the map echo_ports", -error);
}

void remove_ports(int map, const PortSet& ports) {
    const auto keys = ports.to_vector();
    for (std::size_t done = 0; done < keys.size();) {
        auto count = static_cast<__u32>(keys.size() - done);
        int error = bpf_map_delete_batch(map, keys.data() + done, &count, nullptr);
        if (lacks_batches(error)) {
            error = bpf_map_delete_elem(map, keys.data() + done);
            count = error == 0 ? 1 : 0;
        }
        done += count;
        if (error == 0) continue;
        // Somebody else was faster: the port is closed, which is all that was asked for.
        if (error != -ENOENT) fail_to_change(map, "closing ports in the map echo_ports", -error);
        ++done;
    }
}

}  // namespace echo_server
