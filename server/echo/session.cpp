// SPDX-License-Identifier: BSD-2-Clause
#include "echo/session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <system_error>
#include <utility>

#include "echo/counters.h"

using std::error_code;

namespace echo_server {

void SessionContext::connection_ended() {
    increase(counters.ended, 1);
    if (on_end) on_end();
}

void SessionContext::connection_refused() {
    increase(counters.refused, 1);
    connection_ended();
}

Session::Session(Fd client, SessionContext& context)
    : context_(context), socket_(std::move(client), context.io), port_(socket_.local_port()) {
    if (auto& all = context_.by_idleness) idle_position_ = all->insert(all->end(), this);
    mark_active();
    count(context_.reached[port_].accepted);  // last: if there is no memory, the connection is refused
}

Session::~Session() {
    socket_.close();  // first: the callback may accept a client, who may need this descriptor
    if (context_.by_idleness) context_.by_idleness->erase(idle_position_);
    context_.connection_ended();
}

void Session::time_out() {
    increase(context_.counters.timed_out, 1);
    mark_active();  // or it would still be found the longest idle
    socket_.close();
}

void Session::serve(Owner self, Wakeup wakeup) {
    constexpr std::size_t enough_to_splice = 16384;  // for less, one copy more is cheaper than a pipe
    auto& context = self->context_;
    const Input input = self->read_input();
    // Finding the end counts as a hit too: it saves an event.
    if (wakeup == Wakeup::second_look) context.second_look.record(input.at != Input::At::none_yet);
    if (input.at == Input::At::ended) return;
    if (input.at == Input::At::none_yet) {
        // An event told of input, but splice(2) finds none: it is urgent data, say.
        if (wakeup == Wakeup::input) self->splices_ = false;
        return wait_for_input(std::move(self));
    }
    const auto sent = self->send_back(input);
    if (!sent) return;
    if (*sent < input.size) return keep_owed(std::move(self), *sent, input.size);
    self->splices_ = input.at == Input::At::pipe ? input.size >= enough_to_splice
                                                 : input.size == context.buffer.size() && context.pipe.prepare();
    if (!context.second_look.worthwhile()) return wait_for_input(std::move(self));
    context.second_look.add(std::move(self));
}

Session::Input Session::read_input() { return splices_ ? splice_in() : receive(); }

Session::Input Session::receive() {
    const auto [result, size] = socket_.receive(context_.buffer);
    if (result == Transfer::Result::moved) return {Input::At::buffer, tally(context_.counters.received, size)};
    // At the client's FIN nothing is owed, so closing sends ours.
    return {result == Transfer::Result::not_yet ? Input::At::none_yet : Input::At::ended};
}

Session::Input Session::splice_in() {
    auto& pipe = context_.pipe;
    const auto [result, size] = socket_.splice_to(pipe, context_.buffer.size());
    if (result == Transfer::Result::moved) return {Input::At::pipe, tally(context_.counters.received, size)};
    // Whatever it reports, no byte may stay in the pipe: it would go to another client. Where bytes stayed, or may
    // have, this client has lost its place in the stream, and is cut off.
    const bool none_yet = result == Transfer::Result::not_yet;
    const auto left = pipe.bytes();
    if (left != 0) pipe.discard();
    if (left.value_or(none_yet ? 0 : 1) > 0) return {Input::At::ended};
    if (none_yet) return {Input::At::none_yet};
    // The end, urgent data before it, a call that is not allowed, a pipe that is gone: recv(2) tells which.
    splices_ = false;
    return receive();
}

std::optional<std::size_t> Session::send_back(const Input& input) {
    if (input.at == Input::At::pipe) return splice_out(input.size);
    return send(std::span(context_.buffer).first(input.size));
}

std::optional<std::size_t> Session::send(std::span<const char> bytes) {
    const auto [result, size] = socket_.send(bytes);
    if (result == Transfer::Result::not_yet) return 0;
    if (result != Transfer::Result::moved) return {};
    return tally_sent(size);
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
    if (whole) return tally_sent(sent);
    // An error is no proof that nothing was moved: this client has lost its place, and bytes may be left.
    pipe.discard();
    return {};
}

void Session::wait_for_input(Owner self) {
    if (!self->can_wait()) return;
    auto& socket = self->socket_;
    auto& buffer = self->context_.buffer;
    socket.when_readable(buffer, [self = std::move(self)](error_code error) mutable {
        if (!error) serve(std::move(self), Wakeup::input);
    });
}

void Session::keep_owed(Owner self, std::size_t sent, std::size_t received) {
    const auto* data = self->context_.buffer.data();
    self->owed_.assign(data + sent, data + received);
    self->owed_sent_ = 0;
    wait_for_room(std::move(self));
}

void Session::wait_for_room(Owner self) {
    if (!self->can_wait()) return;
    auto& socket = self->socket_;
    socket.when_writable([self = std::move(self)](error_code error) mutable {
        if (!error) send_owed(std::move(self));
    });
}

void Session::send_owed(Owner self) {
    const auto sent = self->send(std::span(self->owed_).subspan(self->owed_sent_));
    if (!sent) return;
    self->owed_sent_ += *sent;
    if (self->owed_sent_ < self->owed_.size()) return wait_for_room(std::move(self));
    self->owed_ = std::vector<char>();  // an idle connection holds no buffer; {} would keep it
    serve(std::move(self), Wakeup::room);
}

bool Session::can_wait() {
    const auto error = socket_.enter_reactor();
    if (error)
        context_.warnings.warn(
            fmt::format("epoll: {}: a connection was cut off; fs.epoll.max_user_watches is the limit, if memory is not",
                        error.message()));
    return !error;
}

std::size_t Session::tally(__u64& counter, std::size_t bytes) {
    increase(counter, bytes);
    mark_active();
    return bytes;
}

std::size_t Session::tally_sent(std::size_t bytes) {
    if (!echoed_ && bytes > 0) {
        echoed_ = true;
        count(context_.reached[port_].echoed);
    }
    return tally(context_.counters.sent, bytes);
}

void Session::mark_active() {
    if (!context_.by_idleness) return;  // a look at the clock for each message would cost
    last_active_ = std::chrono::steady_clock::now();
    auto& all = *context_.by_idleness;
    all.splice(all.end(), all, idle_position_);
}

}  // namespace echo_server
