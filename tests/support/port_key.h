// SPDX-License-Identifier: BSD-2-Clause
// What bpftool reads and prints of the map echo_ports, whose keys are ports in this machine's byte order.
#pragma once

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstdint>
#include <string>

#include "support/process.h"

namespace echo_server {

namespace port_key_detail {

inline std::array<std::uint8_t, 2> bytes(std::uint16_t port) {
    return std::bit_cast<std::array<std::uint8_t, 2>>(port);
}

inline Command on_map(const char* action, const Command& map, std::uint16_t port) {
    const auto [first, second] = bytes(port);
    Command command{"bpftool", "map", action};
    command.insert(command.end(), map.begin(), map.end());
    command.insert(command.end(), {"key", fmt::format("0x{:02x}", first), fmt::format("0x{:02x}", second)});
    return command;
}

}  // namespace port_key_detail

/// The command that opens `port` in a map, which is {"id", ID} or {"pinned", PATH}.
inline Command open_by_bpftool(const Command& map, std::uint16_t port) {
    auto command = port_key_detail::on_map("update", map, port);
    command.insert(command.end(), {"value", "0x00"});
    return command;
}

/// The command that closes `port`.
inline Command close_by_bpftool(const Command& map, std::uint16_t port) {
    return port_key_detail::on_map("delete", map, port);
}

/// The line of an open port in 'bpftool map dump'.
inline std::string dump_of(std::uint16_t port) {
    const auto [first, second] = port_key_detail::bytes(port);
    return fmt::format("key: {:02x} {:02x}  value: 00", first, second);
}

}  // namespace echo_server
