// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <array>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "echo/pipe.h"
#include "echo/second_look.h"
#include "echo_dispatch.h"

namespace echo_server {

class EchoSession;

/// What the sessions of one thread share.
struct SessionContext {
    asio::io_context& io;
    asio::ip::tcp family;  ///< of the sockets, as it is the listener's
    echo_counters& counters;
    bool track_idle;  ///< keep by_idleness
    SecondLook second_look{io};
    std::array<char, 65536> buffer{};
    Pipe pipe{};
    Warnings warnings{};
    std::list<EchoSession*> by_idleness{};   ///< the one first whose last byte is longest ago
    std::function<void()> on_session_end{};  ///< called after each session's end

    /// To be called for each connection that has ended, or was accepted and never became a session.
    void count_end();
};

/// One connection: sends back what it receives, unchanged and in order, until the client has sent its FIN and got all
/// that is owed to it (RFC 862). What a client does not take is kept, at most one buffer full, and until it is gone
/// nothing more is read from that client.
///
/// The handler that waits for the socket owns the session, or SecondLook does, so there is nothing to keep track of: a
/// session ends when its handler returns without passing it on, or when its io_context is destroyed.
class EchoSession {
 public:
    /// Serves `client`, a non-blocking socket, in the thread of `context`, which outlives the session.
    static void start(Fd client, SessionContext& context);

    /// Goes on with input that may have come since the last; see SecondLook.
    static void look_again(std::unique_ptr<EchoSession> self);

    EchoSession(Fd client, SessionContext& context);
    ~EchoSession();
    EchoSession(const EchoSession&) = delete;
    EchoSession& operator=(const EchoSession&) = delete;

    /// When it last received or sent a byte, or began.
    [[nodiscard]] std::chrono::steady_clock::time_point last_active() const { return last_active_; }
    /// Lets it end soon, but not before this returns.
    void time_out();

 private:
    using Owner = std::unique_ptr<EchoSession>;

    // Why a session is served: the client has begun or sent something, SecondLook, or the socket has taken what was owed.
    enum class Occasion { input, second_look, room };
    static void serve(Owner self, Occasion occasion);
    static void wait_for_input(Owner self);
    static void keep_owed(Owner self, std::size_t sent, std::size_t received);
    static void wait_for_room(Owner self);
    static void send_owed(Owner self);

    // Returns how many bytes are in the context's buffer now, 0 if there is no input yet, or nothing at its end.
    std::optional<std::size_t> receive();
    // Returns what the socket took, or nothing if the client is gone.
    std::optional<std::size_t> send(const char* data, std::size_t size);
    // The same by way of the pipe: a stream has much to copy. If splice_in() has cleared splices_, then what it tells is in
    // the buffer all the same. What the socket did not take of the `size` bytes in the pipe is in the buffer after
    // splice_out(), at its place. Both leave the pipe as they should, or discard it: an error is no proof that nothing was
    // moved, and the next client's bytes come behind what is left. This client has lost its place then, and is cut off.
    std::optional<std::size_t> splice_in();
    std::optional<std::size_t> splice_out(std::size_t size);
    // Adds `bytes` to `counter`, as something has moved, and returns them.
    std::size_t count(__u64& counter, ssize_t bytes);
    // Gives the socket to Asio, if that was not done before. Returns whether it could be.
    bool enter_reactor();
    void close();
    void mark_active();

    SessionContext& context_;
    int socket_;
    bool splices_ = false;
    Fd client_;  // owns the socket until it has to wait for the first time: many never do
    asio::ip::tcp::socket waiting_client_;
    std::vector<char> owed_;  // read, but not taken by the full socket
    std::size_t owed_sent_ = 0;
    std::chrono::steady_clock::time_point last_active_;
    std::list<EchoSession*>::iterator place_;  // in by_idleness
};

}  // namespace echo_server
