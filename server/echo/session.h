// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "echo/poller.h"
#include "echo_dispatch.h"
#include "net/listener.h"

namespace echo_server {

/// Adds to a counter that only the calling thread writes, while other threads and processes may read it.
inline void increase(__u64& counter, std::uint64_t amount) {
    const std::atomic_ref shared(counter);
    shared.store(shared.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

/// Adds 1 to a counter that several threads write.
inline void count(__u64& counter) { std::atomic_ref(counter).fetch_add(1, std::memory_order_relaxed); }

/// A pipe through which splice(2) moves bytes from a socket and back to it without a copy. Clients share it, one
/// after the other: bytes that a client leaves must never get to the next client.
class Pipe {
 public:
    /// Throws std::system_error.
    Pipe();

    /// Makes sure that the pipe exists and is empty, for the first bytes of a stream. Returns false if the kernel
    /// refuses a pipe.
    bool prepare() noexcept;
    /// The number of bytes in the pipe, or nothing if the kernel can't tell. A pipe that does not exist has 0.
    [[nodiscard]] std::optional<int> bytes() const noexcept;
    /// Replaces the pipe by a new one: all bytes in it are gone. If the kernel refuses a pipe, there is none until
    /// prepare() makes it.
    void discard() noexcept;

    /// Its ends; -1 if it does not exist.
    [[nodiscard]] int in() const noexcept { return in_.get(); }
    [[nodiscard]] int out() const noexcept { return out_.get(); }

 private:
    bool make() noexcept;

    Fd in_;
    Fd out_;
};

/// What a system call that moves bytes came to.
struct Transfer {
    enum class Result {
        moved,    ///< `size` bytes, at least one
        not_yet,  ///< the socket is empty, or full
        end,      ///< the client has sent its FIN
        failed,   ///< the client is gone, or the call is refused
    };

    Result result = Result::failed;
    std::size_t size = 0;
};

/// The connection to a client.
class ClientSocket {
 public:
    /// `client` is a non-blocking socket. It is closed with this object.
    explicit ClientSocket(Fd client) : socket_(std::move(client)) {}

    [[nodiscard]] Transfer receive(std::span<char> buffer) const;
    [[nodiscard]] Transfer send(std::span<const char> bytes) const;
    /// splice(2) from the socket into `pipe`, and from `pipe` into the socket. Neither waits.
    [[nodiscard]] Transfer splice_to(const Pipe& pipe, std::size_t max_size) const;
    [[nodiscard]] Transfer splice_from(const Pipe& pipe, std::size_t size) const;

    /// The port that the client dialled.
    [[nodiscard]] std::uint16_t local_port() const { return local_endpoint(socket_.get()).port(); }
    [[nodiscard]] int fd() const { return socket_.get(); }
    /// How many bytes the kernel has that the client's side has not acknowledged yet.
    [[nodiscard]] int unacknowledged() const;
    /// Sends a FIN behind all bytes.
    void shut_down() const;
    /// Whether the connection is over: both FINs were acknowledged, or it was reset. True for what is no TCP socket.
    [[nodiscard]] bool is_over() const;
    /// Lets close() end the connection by a FIN. Without this call it is a reset, as the listener's SO_LINGER says.
    void end_by_fin() const;
    /// Lets the kernel give up, after close(), a client that takes no byte for half a minute.
    void limit_time_after_end() const;
    void close() { socket_ = Fd(); }

 private:
    Fd socket_;
};

struct SessionContext;

/// One connection: sends back what it receives, unchanged and in order, until the client has sent its FIN and got all
/// bytes that are owed (RFC 862). Bytes that the client does not take are kept, one buffer of them at most, and until
/// they are gone nothing more is read from that client.
///
/// It runs in the thread of its context, which owns it.
class Session {
 public:
    using List = std::list<std::unique_ptr<Session>>;

    /// `client` is a non-blocking socket. `place` is the place of the session in `context.sessions`.
    Session(Fd client, SessionContext& context, List::iterator place);
    /// The client gets a FIN if it was sent all that was received, or else a reset.
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// Echoes what there is, and waits for more: for the next event of the poller. `only_input` is what the poller has
    /// told, or false. Returns false if the connection is over: then the session is to be destroyed; after
    /// std::bad_alloc, too, but first cut_off().
    [[nodiscard]] bool go_on(bool only_input);
    /// Lets the client get a reset: it must not take this end for the end of the echo.
    void cut_off() { cut_off_ = true; }
    /// Whether the client has acknowledged bytes since the last call, and not all. That counts as activity.
    bool took_some();
    /// To be called every ten seconds. Returns true once the client has acknowledged none of its bytes for a minute:
    /// their memory is the whole host's. Then the session is to be destroyed, after cut_off().
    [[nodiscard]] bool is_stuck();

    /// When the last byte was received or sent, or the session began. Kept only for --idle-timeout.
    [[nodiscard]] std::chrono::steady_clock::time_point last_active() const { return last_active_; }
    [[nodiscard]] List::iterator place() const { return place_; }

 private:
    // What there is to echo, and where it is.
    struct Input {
        enum class At { ended, none_yet, buffer, pipe };
        At at;
        std::size_t size = 0;
    };

    Input receive();
    // By way of the pipe, which saves a stream two copies. If splice(2) does not work here, it is not used any more.
    Input splice_in();
    // Both return how many bytes the socket has taken, or nothing if the client is gone. Bytes of the pipe that it has
    // not taken are in the buffer then, at their place.
    std::optional<std::size_t> send(std::span<const char> bytes);
    std::optional<std::size_t> splice_out(std::size_t size);
    // Returns false if the client is gone.
    bool send_unsent();
    // After the client's FIN. Returns false if it has acknowledged all bytes.
    bool finish();

    // Both return false, after a warning, if epoll refuses the socket.
    bool wait_for(Poller::Event event) { return event == waits_for_ || start_waiting_for(event); }
    bool start_waiting_for(Poller::Event event);

    void count_sent(std::size_t bytes);
    void mark_active();
    // Returns whether it is another number than at the last call.
    bool note_acknowledged();

    // What a message touches comes first: mostly it is on one cache line.
    SessionContext& context_;
    ClientSocket socket_;
    std::uint16_t port_;  // that the client dialled
    Poller::Event waits_for_ = Poller::Event::none;
    bool splices_ : 1 = false;        // the client streams
    bool was_small_ : 1 = false;      // the last piece
    bool echoed_ : 1 = false;         // a byte, at least
    bool waited_ : 1 = false;         // once, at least
    bool cut_off_ : 1 = false;        // by a fault, or bytes were lost
    std::uint8_t stuck_ = 0;          // how many times in a row is_stuck() has seen the same state
    std::uint32_t sent_ = 0;          // bytes, and a FIN; modulo 2^32, and so the next
    std::uint32_t acknowledged_ = 0;  // as note_acknowledged() has seen them
    std::vector<char> unsent_;        // received, but not taken by the full socket
    std::chrono::steady_clock::time_point last_active_;
    List::iterator place_;
};

/// The sessions of one thread, and what they share.
struct SessionContext {
    Poller& poller;
    echo_counters& counters;
    std::span<echo_port_stats> port_stats;  ///< by port; shared with other threads
    bool has_idle_timeout;
    std::array<char, 65536> buffer{};  ///< between two handlers it holds nothing
    Pipe pipe{};
    Warnings warnings{};
    std::function<void()> on_end{};  ///< called at each connection's end, after its socket is closed
    Session::List sessions{};        ///< with an idle timeout the longest idle first; last, as their end needs the rest

    /// To be called for each accepted connection, once its socket is closed.
    void connection_ended();
    /// The same, for want of memory for a session.
    void connection_refused();
};

}  // namespace echo_server
