// SPDX-License-Identifier: BSD-2-Clause
#include "echo/session.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "net/sockets.h"

namespace echo_server {

Pipe::Pipe() {
    if (!renew()) fail("pipe2");
}

std::optional<int> Pipe::bytes() const noexcept {
    if (!out) return 0;
    int bytes = 0;
    if (::ioctl(out.get(), FIONREAD, &bytes) != 0) return {};
    return bytes;
}

bool Pipe::renew() noexcept {
    in = Fd();
    out = Fd();
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return false;
    out = Fd(ends[0]);
    in = Fd(ends[1]);
    return true;
}

namespace {

// Turns the result of a system call into the number of bytes, or -errno.
ssize_t moved(ssize_t result) { return result < 0 ? -errno : result; }

ssize_t splice(const Fd& from, const Fd& to, std::size_t size) {
    const auto result = moved(::splice(from.get(), nullptr, to.get(), nullptr, size, SPLICE_F_NONBLOCK));
    // Unlike send(2), splice(2) fails with EINTR before it starts if a signal is pending.
    return result == -EINTR ? -EAGAIN : result;
}

}  // namespace

Session::Session(Fd client, SessionContext& context) : context_(context), socket_(std::move(client)) {
    // The socket's own address counts at port 0: see echo_port_stats. On 0.0.0.0 or [::] the socket gets connections to
    // its own port at every address, also without the program. If that port has no lookups, they count at port 0.
    const auto dialled = local_endpoint(socket_.get());
    const auto steered = std::atomic_ref(context_.port_stats[dialled.port()].lookups).load(std::memory_order_relaxed);
    if (dialled.port() != context_.own.port() || (steered != 0 && dialled != context_.own)) port_ = dialled.port();
    count(context_.port_stats[port_].accepted);
}

Session::~Session() {
    // close(2) ends the wait only if no other process has the socket open. A reader of /proc/PID/fd may have.
    if (armed_ != Wait::nothing) ::epoll_ctl(context_.epoll, EPOLL_CTL_DEL, socket_.get(), nullptr);
    if (unsent_.empty() && !cut_off_) {
        // Otherwise close(2) would send a reset, because of the SO_LINGER of the listener.
        const linger none{};
        ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
        // Limits how long the kernel waits for a client that does not acknowledge the rest.
        constexpr int user_timeout = 30'000;  // ms
        if (acknowledged_ != sent_)
            ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
    }
    count_by_port();
    socket_ = Fd();  // before the callback, which may accept a connection that needs this descriptor
    context_.connection_ended();
}

bool Session::go_on(bool only_input) {
    constexpr std::size_t enough_to_splice = 16384;  // below this, copies are cheaper than a pipe
    auto& buffer = context_.buffer;
    if (armed_ == Wait::end) return !is_over();
    if (!unsent_.empty() && !send_unsent()) return false;
    if (!unsent_.empty()) return true;
    const auto result = streaming_ ? splice_in() : receive();
    const bool piped = streaming_;
    if (result == 0) return finish();
    if (result == -EAGAIN) {
        // The event was for input, but splice(2) finds none, for example at urgent data: recv(2) is next.
        if (armed_ != Wait::room) streaming_ = false;
        return wait_for(Wait::input);
    }
    cut_off_ = result < 0;
    if (cut_off_) return false;
    const auto received = static_cast<std::size_t>(result);
    increase(context_.counters.received, received);
    const auto sent = piped ? splice_out(received) : send(std::span(buffer).first(received));
    if (sent) count_sent(*sent);
    if (const auto rest = received - sent.value_or(0); rest > 0) {
        count(context_.port_stats[port_].received, rest);
        cut_off_ = true;  // stays so if the client is gone, or if assign() finds no memory
        if (!sent) return false;
        unsent_.assign(buffer.data() + *sent, buffer.data() + received);
        cut_off_ = false;
        return wait_for(Wait::room);
    }
    const bool small = received < enough_to_splice;
    // One small piece does not end a stream: the last segment of a message may be small.
    streaming_ = piped ? !small || !last_was_small_ : received == buffer.size() && context_.pipe.prepare();
    last_was_small_ = small;
    // A recv(2) that returns less than fits has taken all (epoll(7)), unless it stopped at an end or at urgent data.
    // These set more than EPOLLIN, unless the client sends its urgent pointer too late:
    //   sent first:          |d e f|
    //   sent then:    |a b c|        urgent pointer at e: recv(2) returns "abcd", and "ef" waits for the next segment
    const bool took_all = only_input && !piped && received < buffer.size();
    return wait_for(took_all ? Wait::edge : Wait::input);
}

bool Session::send_unsent() {
    const auto sent = send(unsent_);
    if (!sent) return false;
    count_sent(*sent);
    counted_received_ += static_cast<std::uint32_t>(*sent);
    unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(*sent));
    if (unsent_.empty()) unsent_ = std::vector<char>();  // frees the buffer; {} would keep it
    return true;
}

// The session stays until the client has acknowledged all bytes: so it counts as open, and may time out.
bool Session::finish() {
    if (note_acknowledged()) stuck_ = 0;
    if (acknowledged_ == sent_) return false;
    ::shutdown(socket_.get(), SHUT_WR);
    --acknowledged_;  // the client must acknowledge the FIN, too
    return wait_for(Wait::end);
}

bool Session::is_over() const {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const bool known = ::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
    return !known || info.tcpi_state == TCP_CLOSE;
}

bool Session::note_acknowledged() {
    int owed = 0;
    ::ioctl(socket_.get(), SIOCOUTQ, &owed);
    const auto now = sent_ - static_cast<std::uint32_t>(owed);
    return std::exchange(acknowledged_, now) != now;
}

bool Session::has_timed_out() {
    const bool owes = acknowledged_ != sent_;  // an idle session does not, and costs no system call
    // Without this a slow client would seem idle: epoll(7) reports room only when a third of the buffer is free.
    const bool took_some = owes && note_acknowledged();
    if (took_some) idle_ = 0;
    count_by_port();
    ++idle_;
    stuck_ = acknowledged_ == sent_ ? 0 : took_some ? 1 : stuck_ + 1;
    // TCP_USER_TIMEOUT would reset slow clients, too: its clock goes on while they take less than a whole segment.
    cut_off_ = owes && stuck_ > 60;  // not >=, here and below, because the first sweep may come at once
    return cut_off_ || (context_.idle_timeout.count() > 0 && idle_ > context_.idle_timeout.count());
}

// By syscall(2), as in send(): the functions of glibc cost two more atomic operations, for thread cancellation.
ssize_t Session::receive() const {
    auto& buffer = context_.buffer;
    return moved(::syscall(SYS_recvfrom, socket_.get(), buffer.data(), buffer.size(), 0, nullptr, nullptr));
}

ssize_t Session::splice_in() {
    auto& pipe = context_.pipe;
    // The numbers have 32 bits, and a fast machine may send 2^32 bytes between two sweeps.
    if (sent_ - counted_sent_ > 1U << 31U) count_by_port();
    const auto received = splice(socket_, pipe.in, context_.buffer.size());
    if (received > 0) return received;
    // Whatever splice(2) returns, no byte may stay in the pipe: it would go to another client. If bytes stayed, or may
    // have stayed, this stream is corrupt from here: close it.
    const auto left = pipe.bytes();
    if (left != 0) pipe.renew();
    const bool failed = received < 0 && received != -EAGAIN;
    if (left.value_or(failed ? 1 : 0) > 0) return -EIO;
    if (received == -EAGAIN) return received;
    // The end, urgent data, no permission for splice(2), or no pipe: recv(2) tells which. (The kernel reports a reset
    // only once: after it, recv(2) tells an end.)
    streaming_ = false;
    return receive();
}

std::optional<std::size_t> Session::send(std::span<const char> bytes) const {
    const auto sent = moved(::syscall(SYS_sendto, socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0));
    if (sent < 0 && sent != -EAGAIN) return {};
    return std::max<ssize_t>(sent, 0);
}

std::optional<std::size_t> Session::splice_out(std::size_t size) {
    auto& pipe = context_.pipe;
    const auto sent = splice(pipe.out, socket_, size);
    const auto taken = static_cast<std::size_t>(std::max<ssize_t>(sent, 0));
    bool whole = sent > 0 || sent == -EAGAIN;
    for (auto at = taken; whole && at < size;) {
        const auto left = ::read(pipe.out.get(), context_.buffer.data() + at, size - at);
        whole = left > 0;
        at += static_cast<std::size_t>(left);
    }
    if (whole) return taken;
    // Even a call that fails may have moved bytes, and others may be left: the stream is corrupt from here.
    pipe.renew();
    return {};
}

bool Session::start_waiting_for(Wait event) {
    epoll_event wanted{.events = static_cast<std::uint32_t>(event), .data = {.ptr = this}};
    const int operation = armed_ == Wait::nothing ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    armed_ = event;
    if (::epoll_ctl(context_.epoll, operation, socket_.get(), &wanted) == 0) return true;
    const int error = errno;
    cut_off_ = true;
    context_.warnings.warn(
        "epoll: {}: a connection was cut off{}", error_text(error),
        error == ENOSPC ? "; raise the limit of this user ('sysctl -w fs.epoll.max_user_watches=N')" : "");
    return false;
}

void Session::count_sent(std::size_t bytes) {
    increase(context_.counters.sent, bytes);
    sent_ += static_cast<std::uint32_t>(bytes);
    if (echoed_ || bytes == 0) return;
    echoed_ = true;
    count(context_.port_stats[port_].echoed);
}

void Session::count_by_port() {
    if (sent_ == counted_sent_) return;
    auto& port = context_.port_stats[port_];
    count(port.sent, sent_ - counted_sent_);
    count(port.received, sent_ - counted_received_);
    counted_sent_ = counted_received_ = sent_;
    idle_ = 0;
}

}  // namespace echo_server
