// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <string>

namespace echo_server {

// Addresses, and how users write them. If the text is wrong, the functions that parse throw a std::runtime_error that
// quotes it and says what is allowed.

/// The IPv4 address of an IPv4-mapped IPv6 address. Any other address stays as it is.
asio::ip::address unmapped(const asio::ip::address& address);

/// Parses "127.0.0.1:7777" or "[::]:7777".
asio::ip::tcp::endpoint parse_endpoint(const std::string& text);

/// Writes the same notation; the address is unmapped first.
std::string to_string(const asio::ip::tcp::endpoint& endpoint);

/// An IPv4 or IPv6 network, such as 192.0.2.0/24.
struct AddressPrefix {
    asio::ip::address address;
    unsigned length = 0;  ///< in bits

    [[nodiscard]] bool contains(const asio::ip::address& other) const;
    friend bool operator==(const AddressPrefix& a, const AddressPrefix& b) = default;
};

/// Whether they have an address in common.
bool overlap(const AddressPrefix& a, const AddressPrefix& b);

/// Parses "192.0.2.0/24" or "2001:db8::/64". A single address is a prefix of full length.
AddressPrefix parse_address_prefix(const std::string& text);

/// Writes the same notation. A prefix of full length becomes a single address.
std::string to_string(const AddressPrefix& prefix);

}  // namespace echo_server
