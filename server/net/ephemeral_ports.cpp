// SPDX-License-Identifier: BSD-2-Clause
#include "net/ephemeral_ports.h"

#include <fmt/format.h>

#include <cerrno>
#include <stdexcept>
#include <utility>

#include "base/os.h"
#include "base/text.h"

namespace echo_server {
namespace {

// Linux's default since 4.2.
constexpr std::string_view default_range = "32768 60999";

std::optional<PortRange> parse_kernel_range(std::string_view text, std::string_view separators) {
    text = trim(text);
    const auto end = text.find_first_of(separators);
    const auto first = parse_number<std::uint16_t>(text.substr(0, end));
    const auto last = end == std::string_view::npos ? first : parse_number<std::uint16_t>(trim(text.substr(end + 1)));
    if (!first || !last || *first > *last) return {};
    return PortRange{*first, *last};
}

PortSet parse_reserved(std::string_view text) {
    PortSet ports;
    for (std::size_t start = 0, comma = 0; comma != std::string_view::npos; start = comma + 1) {
        comma = text.find(',', start);
        const auto range = parse_kernel_range(text.substr(start, comma - start), "-");
        if (range) ports.insert(range->first, range->last);
    }
    return ports;
}

// How many of so many ports must stay closed.
std::size_t needed(std::size_t usable) {
    constexpr std::size_t enough = 1024;
    return usable < enough ? (usable + 1) / 2 : enough;
}

// The shortest range at the end of `open` that has `count` open ports.
PortRange last_of(const PortSet& open, std::size_t count) {
    const auto ports = open.to_vector();
    return {ports[ports.size() - count], ports.back()};
}

}  // namespace

std::optional<EphemeralPorts> parse_ephemeral_ports(std::string_view range, std::string_view reserved) {
    const auto parsed = parse_kernel_range(range, " \t");
    if (!parsed) return {};
    PortSet usable;
    usable.insert(parsed->first, parsed->last);
    return EphemeralPorts{.range = *parsed, .usable = usable - parse_reserved(reserved)};
}

EphemeralPorts ephemeral_ports() {
    const auto range = read_sysctl("net/ipv4/ip_local_port_range");
    const auto reserved = range ? read_sysctl("net/ipv4/ip_local_reserved_ports") : std::nullopt;
    const int error = errno;
    if (reserved)
        if (auto parsed = parse_ephemeral_ports(*range, *reserved)) return std::move(*parsed);
    auto assumed = parse_ephemeral_ports(default_range, "").value();
    assumed.unreadable = reserved ? "it is no range" : error_text(error);
    return assumed;
}

std::optional<std::string> explain_ephemeral(const PortSet& ports, const EphemeralPorts& local) {
    const auto closed = local.usable - ports;
    const auto must_stay = needed(local.usable.size());
    if (closed.size() >= must_stay) return {};
    const std::string name = "net.ipv4.ip_local_port_range";
    const auto source = local.unreadable.empty()
                            ? name
                            : fmt::format("the kernel's default, as {} can't be read: {}", name, local.unreadable);
    return fmt::format(
        "too few of ports {} stay closed: the host takes the local ports of its own connections from these ({}), and "
        "can connect nowhere while clients hold a connection on each; it needs {} that nobody can take, and the list "
        "leaves it {}: leave some out ('!{}'), or pass --allow-ephemeral in a network namespace of its own",
        to_string(local.range), source, must_stay, closed.size(),
        to_string(last_of(local.usable - closed, must_stay - closed.size())));
}

void check_ephemeral_ports(const PortSet& ports) {
    if (const auto refusal = explain_ephemeral(ports, ephemeral_ports())) throw std::runtime_error(*refusal);
}

}  // namespace echo_server
