// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <string>

namespace echo_server {

/// Reads "127.0.0.1:7777" or "[::]:7777". Throws std::runtime_error, quoting `text` and saying what is allowed.
asio::ip::tcp::endpoint parse_endpoint(const std::string& text);

/// The same notation; an IPv4-mapped IPv6 address is shown as the IPv4 address that it stands for.
std::string to_string(const asio::ip::tcp::endpoint& endpoint);

}  // namespace echo_server
