// SPDX-License-Identifier: BSD-2-Clause
#include "net/address.h"

#include <fmt/format.h>

#include <asio/ip/network_v4.hpp>
#include <asio/ip/network_v6.hpp>
#include <cstdint>
#include <stdexcept>

#include "base/text.h"

namespace echo_server {

using asio::ip::tcp;
using Address = asio::ip::address;

namespace {

unsigned full_length(const Address& address) { return address.is_v4() ? 32 : 128; }

Address network_of(const Address& address, unsigned length) {
    const auto bits = static_cast<unsigned short>(length);
    if (address.is_v4()) return asio::ip::make_network_v4(address.to_v4(), bits).network();
    return asio::ip::make_network_v6(address.to_v6(), bits).network();
}

}  // namespace

Address unmapped(const Address& address) {
    if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
}

tcp::endpoint parse_endpoint(const std::string& text) {
    const auto colon = text.rfind(':');
    if (colon != std::string::npos) {
        const auto port = parse_number<std::uint16_t>(std::string_view(text).substr(colon + 1));
        auto host = text.substr(0, colon);
        const bool bracketed = host.starts_with('[') && host.ends_with(']');
        if (bracketed) host = host.substr(1, host.size() - 2);
        std::error_code error;
        const auto address = asio::ip::make_address(host, error);
        if (port && !error && address.is_v6() == bracketed) return {address, *port};
    }
    throw std::runtime_error(
        fmt::format("{} is not an address and a port: write 127.0.0.1:7777 or [::]:7777", quote(text)));
}

std::string to_string(const tcp::endpoint& endpoint) {
    const auto address = unmapped(endpoint.address());
    return address.is_v6() ? fmt::format("[{}]:{}", address.to_string(), endpoint.port())
                           : fmt::format("{}:{}", address.to_string(), endpoint.port());
}

bool AddressPrefix::contains(const Address& other) const {
    return other.is_v4() == address.is_v4() && network_of(other, length) == address;
}

bool overlap(const AddressPrefix& a, const AddressPrefix& b) { return a.contains(b.address) || b.contains(a.address); }

AddressPrefix parse_address_prefix(const std::string& text) {
    const auto slash = text.find('/');
    std::error_code error;
    const auto parsed = asio::ip::make_address(text.substr(0, slash), error);
    const auto length = slash == std::string::npos ? std::optional(full_length(parsed))
                                                   : parse_number<unsigned>(std::string_view(text).substr(slash + 1));
    const bool scoped = !error && parsed.is_v6() && parsed.to_v6().scope_id() != 0;
    if (error || scoped || !length || *length > full_length(parsed))
        throw std::runtime_error(fmt::format(
            "{} is not an address prefix: write 192.0.2.0/24, 2001:db8::/64 or a lone address", quote(text)));
    // Such a prefix would match nothing: to the kernel, connections to such an address are IPv4.
    if (unmapped(parsed) != parsed)
        throw std::runtime_error(fmt::format("{} is an IPv4-mapped address: write it as IPv4", quote(text)));
    AddressPrefix prefix{network_of(parsed, *length), *length};
    if (prefix.address != parsed)
        throw std::runtime_error(fmt::format("{} has host bits set: write {}", quote(text), to_string(prefix)));
    if (parsed.is_unspecified() && *length == full_length(parsed))
        throw std::runtime_error(fmt::format(
            "{} is not an address that a client can dial: write {}/0 for every IPv{} address, or leave --address out",
            quote(text), parsed.to_string(), parsed.is_v4() ? 4 : 6));
    return prefix;
}

std::string to_string(const AddressPrefix& prefix) {
    const auto text = prefix.address.to_string();
    return prefix.length == full_length(prefix.address) ? text : fmt::format("{}/{}", text, prefix.length);
}

}  // namespace echo_server
