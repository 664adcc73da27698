// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/ip/tcp.hpp>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

/// What the sessions of one thread share.
struct SessionContext {
    std::array<char, 65536> buffer;
    std::size_t open_sessions = 0;         ///< sessions alive
    std::function<void()> on_session_end;  ///< called after each session's end
};

/// One connection: sends back what it receives, unchanged and in order, until the client has sent its FIN and got all
/// that is owed to it (RFC 862). What a client does not take is kept, at most one buffer full, and until it is gone
/// nothing more is read from that client.
///
/// The handler that waits for the socket owns the session, so there is nothing to keep track of: a session ends when
/// its handler returns without passing it on, or when its io_context is destroyed.
class EchoSession {
 public:
    /// Serves `client` on its own executor. `context` outlives the session.
    static void start(asio::ip::tcp::socket client, SessionContext& context);

    EchoSession(asio::ip::tcp::socket client, SessionContext& context);
    ~EchoSession();
    EchoSession(const EchoSession&) = delete;
    EchoSession& operator=(const EchoSession&) = delete;

 private:
    using Owner = std::unique_ptr<EchoSession>;

    static void wait_for_input(Owner self);
    static void echo(Owner self);
    static void send_owed(Owner self);

    asio::ip::tcp::socket client_;
    SessionContext& context_;
    std::vector<char> owed_;  // read, but not taken by the full socket
};
