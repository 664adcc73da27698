// SPDX-License-Identifier: BSD-2-Clause
// Port lists and ports files: any text is accepted or refused, and an accepted list reads the same when it is written
// out.
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "expect.h"
#include "net/port_set.h"
#include "service/ports.h"

namespace echo_server {

namespace {

void read_list(std::string_view text) {
    PortList list;
    try {
        list.add(text);
    } catch (const std::runtime_error&) {
        return;
    }
    const auto ports = list.ports();
    expect(!ports.contains(0));
    if (ports.empty()) return;
    PortList again;
    again.add(ports.to_string());
    expect(again.ports() == ports);
}

void read_file(std::string_view text) {
    try {
        expect(!parse_ports_file(text, "fuzz").ports().contains(0));
    } catch (const std::runtime_error&) {
        return;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    read_list(text);
    read_file(text);
    return 0;
}

}  // namespace echo_server
