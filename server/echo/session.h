// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "echo/client_socket.h"
#include "echo/pipe.h"
#include "echo/second_look.h"
#include "echo_dispatch.h"

namespace echo_server {

struct SessionContext;

/// One connection: sends back what it receives, unchanged and in order, until the client has sent its FIN and got all
/// bytes that are owed (RFC 862). Bytes that the client does not take are kept, one buffer of them at most, and until
/// they are gone nothing more is read from that client.
///
/// The handler that waits for the socket owns the session, or SecondLook does, so nobody keeps a list of owners: a
/// session ends when its handler returns without passing it on, or when its io_context is destroyed.
class Session {
 public:
    using Owner = std::unique_ptr<Session>;

    /// `client` is a non-blocking socket. The session runs in the thread of `context`, which outlives it.
    Session(Fd client, SessionContext& context);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// What woke the session: new input, its turn in SecondLook, or room in a socket that was full.
    enum class Wakeup { input, second_look, room };

    /// Echoes the input that is there, and lets the session wait for more. Throws std::bad_alloc, which ends the
    /// session.
    static void serve(Owner self, Wakeup wakeup);

    /// When the last byte was received or sent, or the session began. Kept only for --idle-timeout.
    [[nodiscard]] std::chrono::steady_clock::time_point last_active() const { return last_active_; }
    /// Ends the session soon, but not before this call returns.
    void time_out();

 private:
    // What there is to echo, and where it is.
    struct Input {
        enum class At { ended, none_yet, buffer, pipe };
        At at;
        std::size_t size = 0;
    };

    Input read_input();
    Input receive();
    // By way of the pipe, which saves a stream two copies. If splice(2) does not work here, it is not used any more.
    Input splice_in();
    // Both return how many bytes of the input the socket has taken, or nothing if the client is gone. All others are
    // in the buffer then, at their place.
    std::optional<std::size_t> send_back(const Input& input);
    std::optional<std::size_t> splice_out(std::size_t size);
    std::optional<std::size_t> send(std::span<const char> bytes);

    static void wait_for_input(Owner self);
    static void keep_owed(Owner self, std::size_t sent, std::size_t received);
    static void wait_for_room(Owner self);
    static void send_owed(Owner self);
    bool can_wait();

    std::size_t tally(__u64& counter, std::size_t bytes);
    std::size_t tally_sent(std::size_t bytes);
    void mark_active();

    SessionContext& context_;
    ClientSocket socket_;
    std::uint16_t port_;      // that the client dialled
    bool splices_ = false;    // the client streams
    bool echoed_ = false;     // a byte, at least
    std::vector<char> owed_;  // received, but not taken by the full socket
    std::size_t owed_sent_ = 0;
    std::chrono::steady_clock::time_point last_active_;
    std::list<Session*>::iterator idle_position_;  // in by_idleness
};

/// What the sessions of one thread share.
struct SessionContext {
    asio::io_context& io;
    echo_counters& counters;
    std::span<echo_reached> reached;                   ///< by port; shared with other threads
    std::optional<std::list<Session*>> by_idleness{};  ///< the longest idle first; nothing without --idle-timeout
    SecondLook<Session> second_look{
        io, [](Session::Owner session) { Session::serve(std::move(session), Session::Wakeup::second_look); }};
    std::array<char, 65536> buffer{};  ///< between two handlers it holds nothing
    Pipe pipe{};
    Warnings warnings{};
    std::function<void()> on_end{};  ///< called at each connection's end, after its socket is closed

    /// To be called for each accepted connection, once its socket is closed.
    void connection_ended();
    /// The same, for want of memory for a session.
    void connection_refused();
};

}  // namespace echo_server
