// SPDX-License-Identifier: BSD-2-Clause
#include "echo_session.h"

#include <asio/buffer.hpp>
#include <asio/write.hpp>
#include <utility>

using asio::ip::tcp;
using std::error_code;

void EchoSession::start(tcp::socket client, SessionContext& context) {
    error_code error;
    client.non_blocking(true, error);
    if (!error) wait_for_input(std::make_unique<EchoSession>(std::move(client), context));
}

EchoSession::EchoSession(tcp::socket client, SessionContext& context) : client_(std::move(client)), context_(context) {
    ++context_.open_sessions;
}

EchoSession::~EchoSession() {
    error_code ignored;
    client_.close(ignored);  // first, so that whoever is told finds the descriptor free
    --context_.open_sessions;
    if (context_.on_session_end) context_.on_session_end();
}

void EchoSession::wait_for_input(Owner self) {
    auto& client = self->client_;
    client.async_wait(tcp::socket::wait_read, [self = std::move(self)](error_code error) mutable {
        if (!error) echo(std::move(self));
    });
}

void EchoSession::echo(Owner self) {
    auto& client = self->client_;
    auto& buffer = self->context_.buffer;
    error_code error;
    const std::size_t received = client.read_some(asio::buffer(buffer), error);
    if (error == asio::error::would_block) return wait_for_input(std::move(self));
    // The client's FIN: nothing is owed at this point, so closing sends ours. Or it is gone.
    if (error) return;

    const std::size_t sent = client.write_some(asio::buffer(buffer.data(), received), error);
    if (error && error != asio::error::would_block) return;
    if (sent == received) return wait_for_input(std::move(self));

    self->owed_.assign(buffer.data() + sent, buffer.data() + received);
    send_owed(std::move(self));
}

void EchoSession::send_owed(Owner self) {
    auto& client = self->client_;
    const auto owed = asio::buffer(self->owed_);
    asio::async_write(client, owed, [self = std::move(self)](error_code error, std::size_t) mutable {
        if (error) return;
        self->owed_ = {};  // an idle connection holds no buffer
        wait_for_input(std::move(self));
    });
}
