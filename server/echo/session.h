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
/// its bytes (RFC 862). If the client does not read, the session keeps at most one buffer of its bytes, and reads no
/// more until they are sent.
///
/// Owned by, and used only in, the thread of its context.
class Session {
 public:
    using List = std::list<Session>;

    /// `client` is a non-blocking socket.
    Session(Fd client, SessionContext& context);
    /// The client gets a FIN if all that was received was sent back, or else a reset.
    ~Session();

    /// The session's place in `context.sessions`, to be set before the first call of go_on().
    void set_place(List::iterator place) { place_ = place; }
    [[nodiscard]] List::iterator place() const { return place_; }

    /// Echoes what there is, then asks `context.epoll` for the next event. `only_input` means that the last event was
    /// EPOLLIN and nothing else. Returns false if the connection is over. Then, and after std::bad_alloc, the session
    /// is to be destroyed.
    [[nodiscard]] bool go_on(bool only_input);
    /// To be called every second. Adds to the figures of the port the bytes since the last call. Returns true if the
    /// session is to be destroyed: no byte has moved for `context.idle_timeout`, or the client owes acknowledgments and
    /// has sent none for a minute. Bytes that it has not acknowledged use kernel memory, which all programs share.
    [[nodiscard]] bool has_timed_out();

 private:
    // What the session waits for, as flags of epoll_ctl(2).
    enum class Wait : std::uint32_t {
        nothing = 0,
        input = EPOLLIN,  // input or an end, reported as long as it is there
        // The same, but reported only when more has come, which costs the kernel less. EPOLLET also keeps EPOLLPRI from
        // being reported all the time: it may come long before the urgent byte can be read.
        edge = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET,
        room = EPOLLOUT,  // in a socket that was full
        end = EPOLLET,    // after shutdown(2): EPOLLHUP, which needs no flag, when both sides have sent a FIN
    };

    // Both return the number of bytes, 0 at the end, or -errno: -EAGAIN if there is nothing yet.
    [[nodiscard]] ssize_t receive() const;
    // Through the pipe, which saves two copies. If splice(2) does not work, ends streaming_ and receives.
    ssize_t splice_in();
    // Both return how many bytes the socket has taken, or nothing if the client is gone. splice_out() reads the other
    // bytes of the pipe into the buffer, to the places that receive() would have given them.
    [[nodiscard]] std::optional<std::size_t> send(std::span<const char> bytes) const;
    std::optional<std::size_t> splice_out(std::size_t size);
    // Returns false if the client is gone.
    bool send_unsent();
    // Called after the client's FIN. Returns false if the client has acknowledged all bytes.
    bool finish();
    // True if both FINs were acknowledged, if the client has sent a reset, or if the kernel can't tell.
    [[nodiscard]] bool is_over() const;

    // Both return false, after a warning, if epoll refuses the socket.
    bool wait_for(Wait event) { return event == armed_ || start_waiting_for(event); }
    bool start_waiting_for(Wait event);

    void count_sent(std::size_t bytes);
    // Adds to the port's `sent` and `received` the bytes echoed since the last call; if there are any, the session is
    // not idle. go_on() itself adds to `received` what the socket does not take at once.
    void count_by_port();
    // Returns whether the client has acknowledged bytes since the last call.
    bool note_acknowledged();

    // Members that each message uses come first: mostly they are on one cache line.
    SessionContext& context_;
    Fd socket_;
    Wait armed_ = Wait::nothing;
    std::uint16_t port_ = 0;              // where it counts in port_stats
    bool streaming_ : 1 = false;          // through the pipe
    bool last_was_small_ : 1 = false;     // the last piece
    bool echoed_ : 1 = false;             // at least one byte
    bool cut_off_ : 1 = false;            // the stream is incomplete: send a reset, because a FIN would hide that
    std::uint8_t stuck_ = 0;              // seconds for which the client has acknowledged none of the bytes sent to it
    std::uint32_t sent_ = 0;              // bytes; like the next three, it starts again at 0 after 2^32 - 1
    std::uint32_t acknowledged_ = 0;      // bytes, minus 1 while the client has not acknowledged our FIN
    std::uint32_t counted_sent_ = 0;      // bytes of `sent_` already counted as `sent`
    std::uint32_t counted_received_ = 0;  // the same for `received`: it also counts bytes when they are sent back
    std::uint32_t idle_ = 0;              // seconds since a byte has moved
    std::vector<char> unsent_;            // received, but not sent yet, because the socket was full
    List::iterator place_;
};

/// A pipe through which splice(2) moves bytes from a socket and back to it without a copy. Clients use it one after
/// the other, so it must be empty in between.
struct Pipe {
    /// Throws std::system_error.
    Pipe();

    /// The number of bytes in the pipe, 0 if there is no pipe, or nothing if the kernel can't tell.
    [[nodiscard]] std::optional<int> bytes() const noexcept;
    /// Makes sure that there is an empty pipe. Returns false if the kernel refuses one.
    bool prepare() noexcept { return (out && bytes() == 0) || renew(); }
    /// Closes the pipe and makes a new one at once, while descriptors are free. Returns false if the kernel refuses it;
    /// then there is no pipe.
    bool renew() noexcept;

    Fd in;
    Fd out;
};

/// The sessions of one thread, and what they share.
struct SessionContext {
    int epoll;  ///< where their sockets wait; data.ptr of an event is the Session
    echo_counters& counters;
    std::span<echo_port_stats> port_stats;  ///< by port; shared with other threads
    std::chrono::seconds idle_timeout;      ///< 0: none
    asio::ip::tcp::endpoint own;            ///< what the listening socket is bound to
    std::array<char, 65536> buffer{};       ///< not used between two handlers
    Pipe pipe{};
    Warnings warnings{};
    std::function<void()> on_end{};  ///< called at each connection's end, after its socket is closed
    Session::List sessions{};        ///< the last member, because sessions use the others when they end

    /// To be called for each accepted connection, once its socket is closed.
    void connection_ended() {
        increase(counters.ended, 1);
        if (on_end) on_end();
    }
};

}  // namespace echo_server
