// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/address.hpp>
#include <string>
#include <vector>

namespace echo_server {

/// An IPv4 or IPv6 network, such as 192.0.2.0/24.
struct AddressPrefix {
    asio::ip::address address;
    unsigned length = 0;  ///< in bits

    [[nodiscard]] bool contains(const asio::ip::address& other) const;
    friend bool operator==(const AddressPrefix& a, const AddressPrefix& b) = default;
};

/// Reads "192.0.2.0/24" or "2001:db8::/64"; a lone address is a prefix of its own. Throws std::runtime_error, quoting
/// `text` and saying what is allowed.
AddressPrefix parse_address_prefix(const std::string& text);

/// The same notation; a prefix of full length is shown as the lone address.
std::string to_string(const AddressPrefix& prefix);

/// "192.0.2.0/24, 2001:db8::/64"
std::string to_string(const std::vector<AddressPrefix>& prefixes);

}  // namespace echo_server
