// SPDX-License-Identifier: BSD-2-Clause
#include "net/address_prefix.h"

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "base/text.h"

namespace echo_server {

using Address = asio::ip::address;

namespace {

unsigned full_length(const Address& of) { return of.is_v4() ? 32 : 128; }

template <typename Bytes>
Bytes cut(Bytes bytes, unsigned length) {
    for (unsigned i = 0; i < bytes.size(); ++i) {
        const unsigned kept = length > i * 8 ? std::min(length - i * 8, 8U) : 0;
        bytes.at(i) = static_cast<std::uint8_t>(bytes.at(i) & (0xff00U >> kept));
    }
    return bytes;
}

Address network_of(const Address& of, unsigned length) {
    if (of.is_v4()) return asio::ip::address_v4(cut(of.to_v4().to_bytes(), length));
    return asio::ip::address_v6(cut(of.to_v6().to_bytes(), length));
}

}  // namespace

bool AddressPrefix::contains(const Address& other) const {
    return other.is_v4() == address.is_v4() && network_of(other, length) == address;
}

AddressPrefix parse_address_prefix(const std::string& text) {
    const auto slash = text.find('/');
    std::error_code error;
    const auto parsed = asio::ip::make_address(text.substr(0, slash), error);
    const auto length = slash == std::string::npos ? std::optional(full_length(parsed))
                                                   : parse_number<unsigned>(std::string_view(text).substr(slash + 1));
    const bool scoped = !error && parsed.is_v6() && parsed.to_v6().scope_id() != 0;
    if (error || scoped || !length || *length > full_length(parsed))
        throw std::runtime_error(
            fmt::format("{} is no address prefix: write 192.0.2.0/24, 2001:db8::/64 or a lone address", quote(text)));
    // The kernel sees such a connection as what it is, one by IPv4.
    if (parsed.is_v6() && parsed.to_v6().is_v4_mapped())
        throw std::runtime_error(fmt::format("{} stands for IPv4: write it as an IPv4 prefix", quote(text)));
    AddressPrefix prefix{network_of(parsed, *length), *length};
    if (prefix.address != parsed)
        throw std::runtime_error(
            fmt::format("{} goes on after its {} bits: write {}", quote(text), *length, to_string(prefix)));
    return prefix;
}

std::string to_string(const AddressPrefix& prefix) {
    const auto text = prefix.address.to_string();
    return prefix.length == full_length(prefix.address) ? text : fmt::format("{}/{}", text, prefix.length);
}

std::string to_string(const std::vector<AddressPrefix>& prefixes) {
    std::string list;
    for (const auto& prefix : prefixes) list += (list.empty() ? "" : ", ") + to_string(prefix);
    return list;
}

}  // namespace echo_server
