// SPDX-License-Identifier: BSD-2-Clause
#include "dispatch/address_key.h"

#include <sys/socket.h>

#include <algorithm>
#include <iterator>

namespace echo_server {
namespace {

constexpr unsigned family_bits = 32;  // they come before the address

}  // namespace

echo_prefix to_key(const AddressPrefix& prefix) {
    echo_prefix key{.bits = family_bits + prefix.length, .family = AF_INET, .address = {}};
    const auto copy = [&](const auto& bytes) { std::copy(bytes.begin(), bytes.end(), std::begin(key.address)); };
    if (prefix.address.is_v4()) {
        copy(prefix.address.to_v4().to_bytes());
    } else {
        key.family = AF_INET6;
        copy(prefix.address.to_v6().to_bytes());
    }
    return key;
}

AddressPrefix to_prefix(const echo_prefix& key) {
    const unsigned length = key.bits - std::min(key.bits, family_bits);
    asio::ip::address_v6::bytes_type bytes;
    std::ranges::copy(key.address, bytes.begin());
    if (key.family == AF_INET) return {asio::ip::address_v4({bytes[0], bytes[1], bytes[2], bytes[3]}), length};
    return {asio::ip::address_v6(bytes), length};
}

}  // namespace echo_server
