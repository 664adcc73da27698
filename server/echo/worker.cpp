// SPDX-License-Identifier: BSD-2-Clause
#include "echo/worker.h"

#include <asio/post.hpp>
#include <memory>
#include <new>
#include <utility>

#include "echo/session.h"

using std::error_code;
using std::chrono::steady_clock;

namespace echo_server {

Worker::Worker(echo_counters& counters, std::span<echo_port_stats> port_stats, std::chrono::seconds idle_timeout)
    : idle_timeout_(idle_timeout),
      context_{.poller = poller_,
               .counters = counters,
               .port_stats = port_stats,
               .has_idle_timeout = idle_timeout > std::chrono::seconds::zero()} {
    if (context_.has_idle_timeout) end_idle_sessions();
    end_stuck_sessions();
}

void Worker::start_thread() {
    thread_ = std::thread([this] { run(); });
}

void Worker::run() {
    for (;;) {
        try {
            io_.run();
            return;
        } catch (const std::bad_alloc&) {
            // Usually a client that was handed over; serve() has counted its end.
            context_.warnings.warn("out of memory: a connection was cut off");
        }
    }
}

void Worker::join() {
    if (thread_.joinable()) thread_.join();
}

void Worker::serve(Fd client) {
    Session::List place;  // in a list of its own: nothing can fail once the session has begun
    try {
        place.emplace_back();
        place.front() = std::make_unique<Session>(std::move(client), context_, place.begin());
    } catch (const std::bad_alloc&) {
        // cppcheck-suppress uselessAssignmentArg  ; it closes the socket, which must come before the count
        client = Fd();
        context_.connection_refused();
        throw;
    }
    auto& session = *place.front();
    context_.sessions.splice(context_.sessions.end(), place);
    go_on(session, false);  // most clients send at once
}

void Worker::go_on(Session& session, bool only_input) noexcept {
    try {
        if (session.go_on(only_input)) return;
    } catch (const std::bad_alloc&) {
        session.cut_off();
        context_.warnings.warn("out of memory: a connection was cut off");
    }
    context_.sessions.erase(session.place());
}

void Worker::hand_over(Fd client) {
    asio::post(io_, [this, client = std::move(client)]() mutable { serve(std::move(client)); });
}

void Worker::ask_for_turn() {
    if (turn_is_due_.exchange(true)) return;
    asio::post(io_, in_memory(turn_memory_, [this] { turn_is_due_ = false; }));
}

void Worker::end_idle_sessions() {
    const auto now = steady_clock::now();
    auto& sessions = context_.sessions;
    while (!sessions.empty() && sessions.front()->last_active() + idle_timeout_ <= now) {
        if (sessions.front()->took_some()) continue;
        increase(context_.counters.timed_out, 1);
        sessions.pop_front();
    }
    const auto oldest = sessions.empty() ? now : sessions.front()->last_active();
    idle_check_.expires_at(oldest + idle_timeout_);
    idle_check_.async_wait(in_memory(idle_memory_, [this](error_code) { end_idle_sessions(); }));
}

void Worker::end_stuck_sessions() {
    auto& sessions = context_.sessions;
    auto next = sessions.begin();
    for (auto left = sessions.size(); left > 0; --left) {  // is_stuck() may move a session to the end
        auto& session = **next++;
        if (!session.is_stuck()) continue;
        increase(context_.counters.timed_out, 1);
        session.cut_off();
        sessions.erase(session.place());
    }
    stuck_check_.expires_after(std::chrono::seconds(10));
    stuck_check_.async_wait(in_memory(stuck_memory_, [this](error_code) { end_stuck_sessions(); }));
}

}  // namespace echo_server
