// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "counters.h"

class EchoSession;

/// What the sessions of one thread share.
struct SessionContext {
    SessionContext(echo_counters& shared, bool track) : counters(shared), track_idle(track) {}

    echo_counters& counters;
    bool track_idle;  ///< keep by_idleness
    std::array<char, 65536> buffer;
    std::list<EchoSession*> by_idleness;   ///< the one first whose last byte is longest ago
    std::function<void()> on_session_end;  ///< called after each session's end

    [[nodiscard]] std::size_t open_sessions() const { return counters.open; }
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

    /// When it last received or sent a byte, or began.
    [[nodiscard]] std::chrono::steady_clock::time_point last_active() const { return last_active_; }
    /// Lets it end as soon as its handler is called, which is after this returns.
    void time_out();

 private:
    using Owner = std::unique_ptr<EchoSession>;

    static void wait_for_input(Owner self);
    static void echo(Owner self);
    static void wait_for_room(Owner self);
    static void send_owed(Owner self);

    // Returns what the socket took, or nothing if the client is gone.
    std::optional<std::size_t> send(const char* data, std::size_t size);
    void mark_active();

    asio::ip::tcp::socket client_;
    SessionContext& context_;
    std::vector<char> owed_;  // read, but not taken by the full socket
    std::size_t owed_sent_ = 0;
    std::chrono::steady_clock::time_point last_active_;
    std::list<EchoSession*>::iterator place_;  // in by_idleness
};
