// SPDX-License-Identifier: BSD-2-Clause
#include "net/ephemeral_ports.h"

#include <fmt/format.h>

#include <cerrno>
#include <stdexcept>

#include "base/os.h"

namespace echo_server {

EphemeralPorts parse_ephemeral_ports(std::string_view range, std::string_view reserved) {
    // Linux's default since 4.2.
    EphemeralPorts local{.range = parse_range(range, '\t').value_or(PortRange{32768, 60999})};
    local.usable.insert(local.range.first, local.range.last);
    PortSet out_of_use;
    for (std::size_t start = 0, comma = 0; comma != std::string_view::npos; start = comma + 1) {
        comma = reserved.find(',', start);
        if (const auto piece = parse_range(reserved.substr(start, comma - start)))
            out_of_use.insert(piece->first, piece->last);
    }
    local.usable = local.usable - out_of_use;
    return local;
}

EphemeralPorts ephemeral_ports() {
    const auto range = read_sysctl("net/ipv4/ip_local_port_range");
    const int error = errno;
    auto local =
        parse_ephemeral_ports(range.value_or(""), read_sysctl("net/ipv4/ip_local_reserved_ports").value_or(""));
    if (!range) local.unreadable = error_text(error);
    return local;
}

void check_ephemeral_ports(const PortSet& ports, const EphemeralPorts& local) {
    const auto closed = local.usable - ports;
    constexpr std::size_t enough = 1024;
    const auto must_stay = local.usable.size() < enough ? (local.usable.size() + 1) / 2 : enough;
    if (closed.size() >= must_stay) return;
    // The shortest range at the end that has as many open ports as are missing.
    const auto open = (local.usable - closed).to_vector();
    const PortRange left_out{open[open.size() - (must_stay - closed.size())], open.back()};
    const std::string name = "net.ipv4.ip_local_port_range";
    const auto source = local.unreadable.empty()
                            ? name
                            : fmt::format("the kernel's default, as {} can't be read: {}", name, local.unreadable);
    throw std::runtime_error(fmt::format(
        "too few of ports {} stay closed: the host takes the local ports of its own connections from these ({}), and "
        "can connect nowhere while clients hold a connection on each; it needs {} that nobody can take, and the list "
        "leaves it {}: leave some out ('!{}'), or pass --allow-ephemeral in a network namespace of its own",
        to_string(local.range), source, must_stay, closed.size(), to_string(left_out)));
}

}  // namespace echo_server
