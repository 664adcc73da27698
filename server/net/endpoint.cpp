// SPDX-License-Identifier: BSD-2-Clause
#include "net/endpoint.h"

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string_view>

#include "base/text.h"

namespace echo_server {

using asio::ip::tcp;

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
    auto address = endpoint.address();
    if (address.is_v6() && address.to_v6().is_v4_mapped())
        address = make_address_v4(asio::ip::v4_mapped, address.to_v6());
    return address.is_v6() ? fmt::format("[{}]:{}", address.to_string(), endpoint.port())
                           : fmt::format("{}:{}", address.to_string(), endpoint.port());
}

}  // namespace echo_server
