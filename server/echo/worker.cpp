// SPDX-License-Identifier: BSD-2-Clause
#include "echo/worker.h"

#include <asio/post.hpp>
#include <new>
#include <utility>

#include "echo/counters.h"

namespace echo_server {

using asio::ip::tcp;
using std::error_code;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

Worker::Worker(tcp family, echo_counters& counters, std::chrono::seconds idle_timeout)
    : sessions_{.io = io_,
                .family = family,
                .counters = counters,
                .track_idle = idle_timeout != std::chrono::seconds::zero()},
      idle_timeout_(idle_timeout) {
    if (sessions_.track_idle) end_idle_sessions();
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
            // Mostly out of the handler that owned a session, which ended with it. The others go on.
            sessions_.warnings.warn("out of memory: a connection was cut off");
        }
    }
}

void Worker::join() {
    if (thread_.joinable()) thread_.join();
}

void Worker::hand_over(Fd client) {
    asio::post(io_, [this, client = std::move(client)]() mutable { serve(std::move(client)); });
}

void Worker::end_idle_sessions() {
    const auto now = steady_clock::now();
    const auto& sessions = sessions_.by_idleness;
    while (!sessions.empty() && sessions.front()->last_active() + idle_timeout_ <= now) sessions.front()->time_out();
    const auto oldest = sessions.empty() ? now : sessions.front()->last_active();
    idle_check_.expires_at(oldest + idle_timeout_);
    idle_check_.async_wait(InMemory(idle_memory_, [this](error_code) { end_idle_sessions(); }));
}

}  // namespace echo_server
