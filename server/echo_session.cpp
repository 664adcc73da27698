// SPDX-License-Identifier: BSD-2-Clause
#include "echo_session.h"

#include <sys/socket.h>

#include <asio/buffer.hpp>
#include <cerrno>
#include <new>
#include <utility>

#include "counters.h"

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
        add(context.counters.refused, 1);
        context.count_end();
        throw;
    }
    serve(std::move(self));  // most clients send at once
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

void EchoSession::look_again(Owner self) { serve(std::move(self), true); }

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

void EchoSession::serve(Owner self, bool second_look) {
    constexpr int most_buffers = 16;  // then it is the turn of others
    auto& context = self->context_;
    for (int buffers = 0; buffers < most_buffers; ++buffers) {
        const auto received = self->receive();
        if (second_look) context.second_look.count(received != 0U);
        second_look = false;
        if (!received) return;
        if (*received == 0) return wait_for_input(std::move(self));
        const auto sent = self->send(context.buffer.data(), *received);
        if (!sent) return;
        if (*sent < *received) return keep_owed(std::move(self), *sent, *received);
        if (*received == context.buffer.size()) continue;  // there may be more
        if (!context.second_look.pays()) return wait_for_input(std::move(self));
        break;
    }
    context.second_look.add(std::move(self));
}

void EchoSession::wait_for_input(Owner self) {
    if (!self->enter_reactor()) return;
    auto& client = self->waiting_client_;
    auto& context = self->context_;
    client.async_receive(asio::buffer(context.buffer.data(), 1), tcp::socket::message_peek,
                         [self = std::move(self)](error_code error, std::size_t) mutable {
                             if (!error) serve(std::move(self));
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
    self->owed_ = {};  // an idle connection holds no buffer
    serve(std::move(self));
}

bool EchoSession::enter_reactor() {
    if (!client_) return waiting_client_.is_open();
    error_code error;
    waiting_client_.assign(context_.family, socket_, error);
    if (error) return false;
    [[maybe_unused]] const int owned_by_asio = client_.release();
    return true;
}

std::optional<std::size_t> EchoSession::receive() {
    const auto received = ::recv(socket_, context_.buffer.data(), context_.buffer.size(), 0);
    if (received < 0 && errno == EAGAIN) return 0;
    // The client's FIN: nothing is owed at this point, so closing sends ours. Or it is gone.
    if (received <= 0) return {};
    add(context_.counters.received, static_cast<std::size_t>(received));
    mark_active();
    return static_cast<std::size_t>(received);
}

std::optional<std::size_t> EchoSession::send(const char* data, std::size_t size) {
    const auto sent = ::send(socket_, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return 0;
    if (sent < 0) return {};
    add(context_.counters.sent, static_cast<std::size_t>(sent));
    mark_active();
    return static_cast<std::size_t>(sent);
}

void EchoSession::mark_active() {
    if (!context_.track_idle) return;  // it would cost a look at the clock for each message
    last_active_ = std::chrono::steady_clock::now();
    context_.by_idleness.splice(context_.by_idleness.end(), context_.by_idleness, place_);
}
