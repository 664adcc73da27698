// SPDX-License-Identifier: BSD-2-Clause
#include "echo/session.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/os.h"

using std::chrono::steady_clock;

namespace echo_server {

Pipe::Pipe() {
    if (!make()) fail("pipe2");
}

bool Pipe::prepare() noexcept {
    if (bytes() != 0) discard();
    return in_ || make();
}

std::optional<int> Pipe::bytes() const noexcept {
    if (!out_) return 0;
    int bytes = 0;
    if (::ioctl(out_.get(), FIONREAD, &bytes) != 0) return {};
    return bytes;
}

void Pipe::discard() noexcept {
    in_ = Fd();
    out_ = Fd();
    make();  // at once: the descriptors are free now, and connections may need them later
}

bool Pipe::make() noexcept {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return false;
    out_ = Fd(ends[0]);
    in_ = Fd(ends[1]);
    return true;
}

namespace {

Transfer transfer(ssize_t moved) {
    if (moved > 0) return {Transfer::Result::moved, static_cast<std::size_t>(moved)};
    if (moved == 0) return {Transfer::Result::end};
    return {errno == EAGAIN ? Transfer::Result::not_yet : Transfer::Result::failed};
}

Transfer splice(int from, int to, std::size_t size) {
    const auto moved = ::splice(from, nullptr, to, nullptr, size, SPLICE_F_NONBLOCK);
    // Unlike send(2), it fails with EINTR before it starts if a signal is pending.
    if (moved < 0 && errno == EINTR) return {Transfer::Result::not_yet};
    return transfer(moved);
}

}  // namespace

// By syscall(2): the functions of glibc let the thread be cancelled meanwhile, by two atomic operations each time.
Transfer ClientSocket::receive(std::span<char> buffer) const {
    return transfer(::syscall(SYS_recvfrom, socket_.get(), buffer.data(), buffer.size(), 0, nullptr, nullptr));
}

Transfer ClientSocket::send(std::span<const char> bytes) const {
    return transfer(::syscall(SYS_sendto, socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0));
}

Transfer ClientSocket::splice_to(const Pipe& pipe, std::size_t max_size) const {
    return splice(socket_.get(), pipe.in(), max_size);
}

Transfer ClientSocket::splice_from(const Pipe& pipe, std::size_t size) const {
    return splice(pipe.out(), socket_.get(), size);
}

int ClientSocket::unacknowledged() const {
    int bytes = 0;
    ::ioctl(socket_.get(), SIOCOUTQ, &bytes);
    return bytes;
}

void ClientSocket::shut_down() const { ::shutdown(socket_.get(), SHUT_WR); }

bool ClientSocket::is_over() const {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const bool known = ::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
    return !known || info.tcpi_state == TCP_CLOSE;
}

void ClientSocket::end_by_fin() const {
    const linger none{};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

void ClientSocket::limit_time_after_end() const {
    constexpr int user_timeout = 30'000;  // ms
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
}

void SessionContext::connection_ended() {
    increase(counters.ended, 1);
    if (on_end) on_end();
}

void SessionContext::connection_refused() {
    increase(counters.refused, 1);
    connection_ended();
}

Session::Session(Fd client, SessionContext& context, List::iterator place)
    : context_(context), socket_(std::move(client)), port_(socket_.local_port()), place_(place) {
    if (context_.has_idle_timeout) last_active_ = steady_clock::now();
    count(context_.port_stats[port_].accepted);
}

Session::~Session() {
    if (waits_for_ != Poller::Event::none) context_.poller.forget(socket_.fd());
    if (unsent_.empty() && !cut_off_) {
        socket_.end_by_fin();
        if (acknowledged_ != sent_) socket_.limit_time_after_end();
    }
    socket_.close();  // first: the callback may accept a client, who may need this descriptor
    context_.connection_ended();
}

bool Session::go_on(bool only_input) {
    constexpr std::size_t enough_to_splice = 16384;  // for less, one copy more is cheaper than a pipe
    auto& buffer = context_.buffer;
    if (waits_for_ == Poller::Event::end) return !socket_.is_over();
    if (waits_for_ == Poller::Event::input_once) waits_for_ = Poller::Event::none;
    if (!unsent_.empty() && !send_unsent()) return false;
    if (!unsent_.empty()) return true;
    const Input input = splices_ ? splice_in() : receive();
    if (input.at == Input::At::ended) return !cut_off_ && finish();
    if (input.at == Input::At::none_yet) {
        // An event has told of input, but splice(2) finds none: it is urgent data, say.
        if (waits_for_ != Poller::Event::room) splices_ = false;
        return wait_for(Poller::Event::input);
    }
    increase(context_.counters.received, input.size);
    mark_active();
    const bool piped = input.at == Input::At::pipe;
    const auto sent = piped ? splice_out(input.size) : send(std::span(buffer).first(input.size));
    if (!sent) {
        cut_off_ = true;
        return false;
    }
    count_sent(*sent);
    if (*sent < input.size) {
        unsent_.assign(buffer.data() + *sent, buffer.data() + input.size);
        note_acknowledged();
        return wait_for(Poller::Event::room);
    }
    const bool small = input.size < enough_to_splice;
    // A stream has small pieces, too: the end of a message that is not a multiple of the segments' size.
    splices_ = piped ? !small || !was_small_ : input.size == buffer.size() && context_.pipe.prepare();
    was_small_ = small;
    // If recv(2) returns less than fits, it has taken all (epoll(7)), unless it has stopped before an end or at urgent
    // data. (A client that sends its urgent pointer only after the byte may keep its own bytes back, until its next.)
    const bool took_all = only_input && !piped && input.size < buffer.size();
    return wait_for(took_all ? Poller::Event::new_input : Poller::Event::input);
}

bool Session::send_unsent() {
    const auto sent = send(unsent_);
    if (!sent) return false;
    count_sent(*sent);
    if (*sent > 0) {
        mark_active();
        note_acknowledged();
    }
    unsent_.erase(unsent_.begin(), unsent_.begin() + static_cast<std::ptrdiff_t>(*sent));
    if (unsent_.empty()) unsent_ = std::vector<char>();  // an idle connection holds no buffer; {} would keep it
    return true;
}

// The session stays until the client has taken what is owed: so it counts, and is_stuck() looks after it.
bool Session::finish() {
    if (socket_.unacknowledged() == 0) {
        acknowledged_ = sent_;
        return false;
    }
    socket_.shut_down();
    ++sent_;
    return wait_for(Poller::Event::end);
}

bool Session::note_acknowledged() {
    const auto now = sent_ - static_cast<std::uint32_t>(socket_.unacknowledged());
    if (std::exchange(acknowledged_, now) == now) return false;
    stuck_ = 0;
    return true;
}

// epoll(7) tells of room when a third of the buffer is free: a slow client may need longer for that than it may be
// idle.
bool Session::took_some() {
    if (!note_acknowledged() || acknowledged_ == sent_) return false;
    mark_active();
    return true;
}

bool Session::is_stuck() {
    constexpr int times = 6;
    if (acknowledged_ == sent_) return false;  // no system call for a session that is idle
    const bool some = took_some();
    if (some) stuck_ = 1;
    // Not TCP_USER_TIMEOUT: the kernel's clock for it runs on while a slow client takes less than a whole segment.
    return !some && acknowledged_ != sent_ && stuck_++ >= times;
}

Session::Input Session::receive() {
    const auto [result, size] = socket_.receive(context_.buffer);
    if (result == Transfer::Result::moved) return {Input::At::buffer, size};
    cut_off_ = result == Transfer::Result::failed;
    return {result == Transfer::Result::not_yet ? Input::At::none_yet : Input::At::ended};
}

Session::Input Session::splice_in() {
    auto& pipe = context_.pipe;
    const auto [result, size] = socket_.splice_to(pipe, context_.buffer.size());
    if (result == Transfer::Result::moved) return {Input::At::pipe, size};
    // Whatever it reports, no byte may stay in the pipe: it would go to another client. Where bytes stayed, or may
    // have, this client has lost its place in the stream, and is cut off.
    const bool none_yet = result == Transfer::Result::not_yet;
    const auto left = pipe.bytes();
    if (left != 0) pipe.discard();
    cut_off_ = left.value_or(result == Transfer::Result::failed ? 1 : 0) > 0;
    if (cut_off_) return {Input::At::ended};
    if (none_yet) return {Input::At::none_yet};
    // The end, urgent data before it, a call that is not allowed, a pipe that is gone: recv(2) tells which.
    splices_ = false;
    return receive();
}

std::optional<std::size_t> Session::send(std::span<const char> bytes) {
    const auto [result, size] = socket_.send(bytes);
    if (result == Transfer::Result::not_yet) return 0;
    if (result != Transfer::Result::moved) return {};
    return size;
}

std::optional<std::size_t> Session::splice_out(std::size_t size) {
    auto& pipe = context_.pipe;
    const auto [result, sent] = socket_.splice_from(pipe, size);
    bool whole = result == Transfer::Result::moved || result == Transfer::Result::not_yet;
    for (auto at = sent; whole && at < size;) {
        const auto left = ::read(pipe.out(), context_.buffer.data() + at, size - at);
        whole = left > 0;
        at += static_cast<std::size_t>(left);
    }
    if (whole) return sent;
    // An error is no proof that nothing was moved: this client has lost its place, and bytes may be left.
    pipe.discard();
    return {};
}

bool Session::start_waiting_for(Poller::Event event) {
    // What a client does after its first wait is often its end: then epoll need not be asked to forget the socket.
    if (!waited_ && event == Poller::Event::input) event = Poller::Event::input_once;
    const auto error = context_.poller.watch(socket_.fd(), *this, event, !waited_);
    waits_for_ = event;
    waited_ = true;
    if (!error) return true;
    cut_off_ = true;
    context_.warnings.warn("epoll: {}: a connection was cut off{}", error_text(error.value()),
                           error == std::errc::no_space_on_device
                               ? "; raise the limit of this user ('sysctl -w fs.epoll.max_user_watches=N')"
                               : "");
    return false;
}

void Session::count_sent(std::size_t bytes) {
    increase(context_.counters.sent, bytes);
    sent_ += static_cast<std::uint32_t>(bytes);
    if (echoed_ || bytes == 0) return;
    echoed_ = true;
    count(context_.port_stats[port_].echoed);
}

void Session::mark_active() {
    if (!context_.has_idle_timeout) return;  // a look at the clock for each message would cost
    last_active_ = steady_clock::now();
    auto& all = context_.sessions;
    all.splice(all.end(), all, place_);
}

}  // namespace echo_server
