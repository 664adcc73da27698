// SPDX-License-Identifier: BSD-2-Clause
#include "echo/session.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <asio/buffer.hpp>
#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "echo/counters.h"

namespace echo_server {

using asio::ip::tcp;
using std::error_code;

void SessionContext::count_end() {
    add(counters.open, -1, std::memory_order_seq_cst);
    if (on_session_end) on_session_end();
}

void EchoSession::start(Fd client, SessionContext& context) {
    Owner self;
    try {
        self = std::make_unique<EchoSession>(std::move(client), context);
    } catch (const std::bad_alloc&) {
        // cppcheck-suppress uselessAssignmentArg  ; it closes the socket, before anybody is told
        client = Fd();
        add(context.counters.refused, 1);
        context.count_end();
        throw;
    }
    serve(std::move(self), Occasion::input);  // most clients send at once
}

EchoSession::EchoSession(Fd client, SessionContext& context)
    : context_(context), socket_(client.get()), client_(std::move(client)), waiting_client_(context.io) {
    if (context_.track_idle) place_ = context_.by_idleness.insert(context_.by_idleness.end(), this);
    mark_active();
}

EchoSession::~EchoSession() {
    close();  // first, so that whoever is told finds the descriptor free
    if (context_.track_idle) context_.by_idleness.erase(place_);
    context_.count_end();
}

void EchoSession::look_again(Owner self) { serve(std::move(self), Occasion::second_look); }

void EchoSession::time_out() {
    add(context_.counters.timed_out, 1);
    mark_active();  // or it would still be found the longest idle
    close();
}

void EchoSession::close() {
    error_code ignored;
    waiting_client_.close(ignored);
    client_ = Fd();
    socket_ = -1;
}

void EchoSession::serve(Owner self, Occasion occasion) {
    constexpr std::size_t enough_to_splice = 16384;  // for less, one copy more is cheaper than a pipe
    auto& context = self->context_;
    const auto received = self->splices_ ? self->splice_in() : self->receive();
    // The end is worth having looked as well: it takes no event then.
    if (occasion == Occasion::second_look) context.second_look.count(!received || *received > 0);
    if (!received) return;
    if (*received == 0) {
        // An event told of input, but splice(2) finds none: it is urgent data, say.
        if (occasion == Occasion::input) self->splices_ = false;
        return wait_for_input(std::move(self));
    }
    const auto sent = self->splices_ ? self->splice_out(*received) : self->send(context.buffer.data(), *received);
    if (!sent) return;
    if (*sent < *received) return keep_owed(std::move(self), *sent, *received);
    self->splices_ =
        self->splices_ ? *received >= enough_to_splice : *received >= context.buffer.size() && context.pipe.prepare();
    if (!context.second_look.pays()) return wait_for_input(std::move(self));
    context.second_look.add(std::move(self));
}

void EchoSession::wait_for_input(Owner self) {
    if (!self->enter_reactor()) return;
    auto& client = self->waiting_client_;
    auto& context = self->context_;
    // Not by async_wait, which takes an epoll_ctl(2) each time. The peek may write to the buffer between any two handlers:
    // nothing in it is needed then.
    client.async_receive(asio::buffer(context.buffer.data(), 1), tcp::socket::message_peek,
                         [self = std::move(self)](error_code error, std::size_t) mutable {
                             if (!error) serve(std::move(self), Occasion::input);
                         });
}

void EchoSession::keep_owed(Owner self, std::size_t sent, std::size_t received) {
    const auto* data = self->context_.buffer.data();
    self->owed_.assign(data + sent, data + received);
    self->owed_sent_ = 0;
    wait_for_room(std::move(self));
}

void EchoSession::wait_for_room(Owner self) {
    if (!self->enter_reactor()) return;
    auto& client = self->waiting_client_;
    client.async_wait(tcp::socket::wait_write, [self = std::move(self)](error_code error) mutable {
        if (!error) send_owed(std::move(self));
    });
}

void EchoSession::send_owed(Owner self) {
    const auto sent = self->send(self->owed_.data() + self->owed_sent_, self->owed_.size() - self->owed_sent_);
    if (!sent) return;
    self->owed_sent_ += *sent;
    if (self->owed_sent_ < self->owed_.size()) return wait_for_room(std::move(self));
    self->owed_ = std::vector<char>();  // an idle connection holds no buffer; {} would keep it
    serve(std::move(self), Occasion::room);
}

bool EchoSession::enter_reactor() {
    if (!client_) return waiting_client_.is_open();
    error_code error;
    waiting_client_.assign(context_.family, socket_, error);
    if (error) {
        context_.warnings.warn(
            fmt::format("epoll: {}: a connection was cut off; fs.epoll.max_user_watches is the limit, if memory is not",
                        error.message()));
        return false;
    }
    [[maybe_unused]] const int owned_by_asio = client_.release();
    return true;
}

std::optional<std::size_t> EchoSession::receive() {
    const auto received = ::recv(socket_, context_.buffer.data(), context_.buffer.size(), 0);
    if (received < 0 && errno == EAGAIN) return 0;
    // The client's FIN: nothing is owed at this point, so closing sends ours. Or it is gone.
    if (received <= 0) return {};
    return count(context_.counters.received, received);
}

std::optional<std::size_t> EchoSession::send(const char* data, std::size_t size) {
    const auto sent = ::send(socket_, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return 0;
    if (sent < 0) return {};
    return count(context_.counters.sent, sent);
}

std::optional<std::size_t> EchoSession::splice_in() {
    auto& pipe = context_.pipe;
    const auto received = ::splice(socket_, nullptr, pipe.in(), nullptr, context_.buffer.size(), SPLICE_F_NONBLOCK);
    if (received > 0) return count(context_.counters.received, received);
    const bool nothing_yet = received < 0 && (errno == EAGAIN || errno == EINTR);
    // Whatever it reports, no byte stays behind for another client. If any did, they are missing here.
    const auto left = pipe.bytes();
    if (left != 0) pipe.discard();
    if (left.value_or(nothing_yet ? 0 : 1) > 0) return {};
    if (nothing_yet) return 0;
    // The end, urgent data before it, a call that is not allowed, a pipe that is gone: recv(2) tells.
    splices_ = false;
    return receive();
}

std::optional<std::size_t> EchoSession::splice_out(std::size_t size) {
    auto& pipe = context_.pipe;
    auto sent = ::splice(pipe.out(), nullptr, socket_, nullptr, size, SPLICE_F_NONBLOCK);
    // Unlike send(2), which would not wait, it does not even begin if there is a signal.
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        pipe.discard();
        return {};
    }
    if (sent < 0) sent = 0;
    for (auto at = static_cast<std::size_t>(sent); at < size;) {
        const auto left = ::read(pipe.out(), context_.buffer.data() + at, size - at);
        if (left <= 0) {
            pipe.discard();
            return {};
        }
        at += static_cast<std::size_t>(left);
    }
    return count(context_.counters.sent, sent);
}

std::size_t EchoSession::count(__u64& counter, ssize_t bytes) {
    add(counter, bytes);
    mark_active();
    return static_cast<std::size_t>(bytes);
}

void EchoSession::mark_active() {
    if (!context_.track_idle) return;  // it would cost a look at the clock for each message
    last_active_ = std::chrono::steady_clock::now();
    context_.by_idleness.splice(context_.by_idleness.end(), context_.by_idleness, place_);
}

}  // namespace echo_server
