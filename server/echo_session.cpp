// SPDX-License-Identifier: BSD-2-Clause
#include "echo_session.h"

#include <asio/buffer.hpp>
#include <utility>

using asio::ip::tcp;
using std::error_code;

void EchoSession::start(tcp::socket client, SessionContext& context) {
    error_code error;
    client.non_blocking(true, error);
    if (!error) wait_for_input(std::make_unique<EchoSession>(std::move(client), context));
}

EchoSession::EchoSession(tcp::socket client, SessionContext& context) : client_(std::move(client)), context_(context) {
    if (context_.track_idle) place_ = context_.by_idleness.insert(context_.by_idleness.end(), this);
    mark_active();
    add(context_.counters.open, 1);
}

EchoSession::~EchoSession() {
    error_code ignored;
    client_.close(ignored);  // first, so that whoever is told finds the descriptor free
    if (context_.track_idle) context_.by_idleness.erase(place_);
    subtract(context_.counters.open, 1);
    if (context_.on_session_end) context_.on_session_end();
}

void EchoSession::time_out() {
    add(context_.counters.timed_out, 1);
    mark_active();  // or it would still be found the longest idle
    error_code ignored;
    client_.close(ignored);
}

void EchoSession::wait_for_input(Owner self) {
    auto& client = self->client_;
    client.async_wait(tcp::socket::wait_read, [self = std::move(self)](error_code error) mutable {
        if (!error) echo(std::move(self));
    });
}

void EchoSession::echo(Owner self) {
    auto& buffer = self->context_.buffer;
    error_code error;
    const std::size_t received = self->client_.read_some(asio::buffer(buffer), error);
    if (error == asio::error::would_block) return wait_for_input(std::move(self));
    // The client's FIN: nothing is owed at this point, so closing sends ours. Or it is gone.
    if (error) return;
    add(self->context_.counters.received, received);
    self->mark_active();

    const auto sent = self->send(buffer.data(), received);
    if (!sent) return;
    if (*sent == received) return wait_for_input(std::move(self));
    self->owed_.assign(buffer.data() + *sent, buffer.data() + received);
    self->owed_sent_ = 0;
    wait_for_room(std::move(self));
}

void EchoSession::wait_for_room(Owner self) {
    auto& client = self->client_;
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
    wait_for_input(std::move(self));
}

std::optional<std::size_t> EchoSession::send(const char* data, std::size_t size) {
    error_code error;
    const std::size_t sent = client_.write_some(asio::buffer(data, size), error);
    if (error && error != asio::error::would_block) return {};
    if (sent == 0) return 0;
    add(context_.counters.sent, sent);
    mark_active();
    return sent;
}

void EchoSession::mark_active() {
    if (!context_.track_idle) return;  // it would cost a look at the clock for each message
    last_active_ = std::chrono::steady_clock::now();
    context_.by_idleness.splice(context_.by_idleness.end(), context_.by_idleness, place_);
}
