// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/epoll.h>
#include <sys/types.h>

#include <array>
#include <asio/ip/tcp.hpp>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "echo_dispatch.h"

namespace echo_server {

/// Adds to a counter that only the calling thread writes, while other threads and processes may read it.
inline void increase(__u64& counter, std::uint64_t amount) {
    const std::atomic_ref shared(counter);
    shared.store(shared.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

/// Adds to a counter that several threads write.
inline void count(__u64& counter, std::uint64_t amount = 1) {
    std::atomic_ref(counter).fetch_add(amount, std::memory_order_relaxed);
}

struct SessionContext;

/// One connection: sends back what it receives, unchanged and in order, until the client has sent its FIN and got all
/// bytes that are owed (RFC 862). Bytes that the client does not take are kept, one buffer of them at most, and until
/// they are gone nothing more is read from that client.
///
/// Owned by, and used only in, the thread of its context.
class Session {
 public:
    using List = std::list<Session>;

    /// `client` is a non-blocking socket.
    Session(Fd client, SessionContext& context);
    /// The client gets a FIN if it was sent all that was received, or else a reset.
    ~Session();

    /// The place of the session in `context.sessions`; to be set before the first call of go_on().
    void set_place(List::iterator place) { place_ = place; }
    [[nodiscard]] List::iterator place() const { return place_; }

    /// Echoes what there is, and waits for more: for the next event of `context.epoll`. `only_input` says that the
    /// event was EPOLLIN and nothing else. Returns false if the connection is over: then, and after std::bad_alloc, the
    /// session is to be destroyed.
    [[nodiscard]] bool go_on(bool only_input);
    /// To be called every second. Adds to the figures of the port what was sent since the last call. Returns
    /// true if no byte moved for `context.idle_timeout`, or if the client has acknowledged none of its bytes for a
    /// minute: their memory is the whole host's. Then the session is to be destroyed.
    [[nodiscard]] bool has_timed_out();

 private:
    // What the session waits for: flags of epoll_ctl(2).
    enum class Wait : std::uint32_t {
        nothing = 0,
        input = EPOLLIN,  // or an end; as long as some is there
        // The same, only when more has come, which saves the kernel a look at the socket. EPOLLPRI may come long before
        // the urgent byte can be read: only edge-triggered it does not come again and again.
        edge = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET,
        room = EPOLLOUT,  // in a socket that was full
        end = EPOLLET,    // of a socket that was shut down: EPOLLHUP, which is always told, once both sides sent a FIN
    };

    // Both return the number of bytes, 0 at the end, or -errno: -EAGAIN if there is nothing yet.
    [[nodiscard]] ssize_t receive() const;
    // By way of the pipe, which saves a stream two copies. Ends streaming_, and receives, if splice(2) does not work.
    ssize_t splice_in();
    // Both return how many bytes the socket has taken, or nothing if the client is gone. Bytes of the pipe that it has
    // not taken are in the buffer then, at their place.
    [[nodiscard]] std::optional<std::size_t> send(std::span<const char> bytes) const;
    std::optional<std::size_t> splice_out(std::size_t size);
    // Returns false if the client is gone.
    bool send_unsent();
    // After the client's FIN. Returns false if it has acknowledged all bytes.
    bool finish();
    // Both FINs were acknowledged, or the client has sent a reset. True for what is no TCP socket.
    [[nodiscard]] bool is_over() const;

    // Both return false, after a warning, if epoll refuses the socket.
    bool wait_for(Wait event) { return event == armed_ || start_waiting_for(event); }
    bool start_waiting_for(Wait event);

    void count_sent(std::size_t bytes);
    // Adds what was sent since the last call to both figures of the port. What was not sent at once is in `received`.
    void count_by_port();
    // Returns whether the client has acknowledged bytes since the last call.
    bool note_acknowledged();

    // What a message touches comes first: mostly it is on one cache line.
    SessionContext& context_;
    Fd socket_;
    Wait armed_ = Wait::nothing;
    std::uint16_t port_ = 0;              // that the client dialled; 0 if it is the socket's own
    bool streaming_ : 1 = false;          // by way of the pipe
    bool last_was_small_ : 1 = false;     // the last piece
    bool echoed_ : 1 = false;             // a byte, at least
    bool cut_off_ : 1 = false;            // by a fault, or bytes were lost: gets a reset, lest it look like the end
    std::uint8_t stuck_ = 0;              // sweeps that have seen the client owe, and acknowledge nothing
    std::uint32_t sent_ = 0;              // bytes; modulo 2^32, and so the next three
    std::uint32_t acknowledged_ = 0;      // of these, as note_acknowledged() has seen them; 1 less while a FIN is owed
    std::uint32_t counted_sent_ = 0;      // of these, in the port's figure `sent`
    std::uint32_t counted_received_ = 0;  // of these, in the port's figure `received`
    std::uint32_t idle_ = 0;              // sweeps since something has moved
    std::vector<char> unsent_;            // received, but not taken by the full socket
    List::iterator place_;
};

/// A pipe through which splice(2) moves bytes from a socket and back to it without a copy. Clients share it, one after
/// the other: bytes that a client leaves must never get to the next client.
struct Pipe {
    /// Throws std::system_error.
    Pipe();

    /// The number of bytes in the pipe, or nothing if the kernel can't tell. A pipe that does not exist has 0.
    [[nodiscard]] std::optional<int> bytes() const noexcept;
    /// Makes sure that there is a pipe, and that it is empty. Returns false if the kernel refuses one.
    bool prepare() noexcept { return (out && bytes() == 0) || renew(); }
    /// Makes a new pipe at once, while descriptors are free: all bytes in the old one are gone. Returns false, and
    /// there is none, if the kernel refuses it.
    bool renew() noexcept;

    Fd in;
    Fd out;
};

/// The sessions of one thread, and what they share.
struct SessionContext {
    int epoll;  ///< where their sockets wait: of an event, data.ptr is the Session
    echo_counters& counters;
    std::span<echo_port_stats> port_stats;  ///< by port; shared with other threads
    std::chrono::seconds idle_timeout;      ///< 0 is none
    asio::ip::tcp::endpoint own;            ///< what the listening socket is bound to
    std::array<char, 65536> buffer{};       ///< between two handlers it holds nothing
    Pipe pipe{};
    Warnings warnings{};
    std::function<void()> on_end{};  ///< called at each connection's end, after its socket is closed
    Session::List sessions{};        ///< last, as their end needs the rest

    /// To be called for each accepted connection, once its socket is closed.
    void connection_ended() {
        increase(counters.ended, 1);
        if (on_end) on_end();
    }
};

}  // namespace echo_server
