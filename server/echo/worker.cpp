// SPDX-License-Identifier: BSD-2-Clause
#include "echo/worker.h"

#include <asio/post.hpp>
#include <new>
#include <utility>

using std::error_code;
using std::chrono::steady_clock;

namespace echo_server {

Worker::Worker(echo_counters& counters, std::span<echo_reached> reached, std::chrono::seconds idle_timeout)
    : sessions_{.io = io_, .counters = counters, .reached = reached}, idle_timeout_(idle_timeout) {
    if (idle_timeout == std::chrono::seconds::zero()) return;
    sessions_.by_idleness.emplace();
    end_idle_sessions();
}

Worker::~Worker() { sessions_.second_look.clear(); }  // sockets can't outlive io_

void Worker::start_thread() {
    thread_ = std::thread([this] { run(); });
}

void Worker::run() {
    for (;;) {
        try {
            io_.run();
            return;
        } catch (const std::bad_alloc&) {
            // Usually thrown by the handler that owned a session: only that session is lost.
            sessions_.warnings.warn("out of memory: a connection was cut off");
        }
    }
}

void Worker::join() {
    if (thread_.joinable()) thread_.join();
}

void Worker::serve(Fd client) {
    Session::Owner session;
    try {
        session = std::make_unique<Session>(std::move(client), sessions_);
    } catch (const std::bad_alloc&) {
        // cppcheck-suppress uselessAssignmentArg  ; it closes the socket, which must come before the count
        client = Fd();
        sessions_.connection_refused();
        throw;
    }
    Session::serve(std::move(session), Session::Wakeup::input);  // most clients send at once
}

void Worker::hand_over(Fd client) {
    asio::post(io_, [this, client = std::move(client)]() mutable { serve(std::move(client)); });
}

void Worker::end_idle_sessions() {
    const auto now = steady_clock::now();
    const auto& sessions = *sessions_.by_idleness;
    while (!sessions.empty() && sessions.front()->last_active() + idle_timeout_ <= now) sessions.front()->time_out();
    const auto oldest = sessions.empty() ? now : sessions.front()->last_active();
    idle_check_.expires_at(oldest + idle_timeout_);
    idle_check_.async_wait(in_memory(idle_memory_, [this](error_code) { end_idle_sessions(); }));
}

}  // namespace echo_server
