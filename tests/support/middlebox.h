// SPDX-License-Identifier: BSD-2-Clause
// What can stand between a client and a server: a router, its packet filter, and programs on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/os.h"
#include "support/client.h"
#include "support/netns.h"
#include "support/peer.h"

namespace echo_server {

/// A rule of the router's packet filter (nft(8)), on TCP to and from some of the server's ports: "7", or "7-9".
struct PortRule {
    std::string ports;
    /// Where the rule applies: to packets that come to the router ("arriving"), that go on to the server ("there") or
    /// to the client ("back"), or where the address and port of the server ("translation") or of the client
    /// ("leaving") are translated.
    std::string chain;
    std::string what;
};

/// A client and a server, and the router between them.
struct RoutedNetwork {
    static constexpr auto router_ip4 = "192.0.2.254";  // as the client sees it
    static constexpr auto router_ip6 = "2001:db8:1::254";
    static constexpr auto server_ip4 = "198.51.100.2";
    static constexpr auto server_ip6 = "2001:db8:2::2";

    RoutedNetwork();

    /// Call it once. The conntrack timeout "two_seconds" forgets a connection after two seconds of silence.
    void add_rules(const std::vector<PortRule>& rules) const;

    Netns client;
    Netns router;
    Netns server;
};

/// A program on the router that takes the connections to a port of the server; a rule of its packet filter, `redirect`,
/// leads them there.
class Interceptor {
 public:
    /// Serves a client; `connect_on` connects to the server, to where the client wanted to go. What is still open at
    /// the end is reset.
    using Serve = std::function<void(const Fd& client, const std::function<Client()>& connect_on)>;

    Interceptor(const RoutedNetwork& network, std::uint16_t port, Serve serve);

 private:
    Peer peer_;
};

/// Changes bytes of a stream; `at` is the place of the first of them.
using Change = std::function<void(std::string& bytes, std::size_t at)>;

/// How a relay ends a client's connection.
enum class End { fin, reset };

/// Passes on all bytes, changed, and each end, in both directions.
Interceptor::Serve relay(const Change& there, const Change& back);

/// The same, but as soon as the server has sent `limit` bytes, it ends the client's connection.
Interceptor::Serve relay_until(std::size_t limit, End end, const Change& there, const Change& back);

/// Takes some bytes, answers with `text`, and closes.
Interceptor::Serve answer(const std::string& text);

/// Echoes.
Interceptor::Serve echo_there();

/// Takes all bytes, and sends nothing.
Interceptor::Serve say_nothing();

}  // namespace echo_server
