// SPDX-License-Identifier: BSD-2-Clause
#include "echo/worker.h"

#include <sys/epoll.h>

#include <asio/post.hpp>
#include <iterator>

using std::error_code;

namespace echo_server {

Worker::Worker(echo_counters& counters, std::span<echo_port_stats> port_stats, std::chrono::seconds idle_timeout,
               const asio::ip::tcp::endpoint& own)
    : epoll_(io_, checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1").release()),
      context_{.epoll = epoll_.native_handle(),
               .counters = counters,
               .port_stats = port_stats,
               .idle_timeout = idle_timeout,
               .own = own} {
    wait_for_events();
    sweep();
}

void Worker::run() {
    for (;;) {
        try {
            io_.run();
            return;
        } catch (const std::bad_alloc&) {
            // Usually from hand_over(), which has counted the connection.
            context_.warnings.warn("out of memory: a connection was cut off");
        }
    }
}

void Worker::serve(Fd client) {
    auto& sessions = context_.sessions;
    auto& session = sessions.emplace_back(std::move(client), context_);
    session.set_place(std::prev(sessions.end()));
    go_on(session, false);  // most clients send at once
}

void Worker::wait_for_events() {
    epoll_.async_wait(asio::posix::stream_descriptor::wait_read,
                      in_memory(memory_, [this](error_code) { handle_events(); }));
}

void Worker::handle_events() {
    constexpr int max_events = 128;  // as many as Asio takes at a time; then other handlers run
    std::array<epoll_event, max_events> events;
    for (int handled = 0; handled < max_events;) {
        const int ready = ::epoll_wait(context_.epoll, events.data(), max_events - handled, 0);
        if (ready <= 0) return wait_for_events();
        // Within a batch, a session ends only by its own event, so each pointer is valid.
        for (const auto& event : std::span(events).first(static_cast<std::size_t>(ready)))
            go_on(*static_cast<Session*>(event.data.ptr), event.events == EPOLLIN);
        handled += ready;
    }
    // Not to the executor of epoll_, an any_io_executor, which would allocate.
    asio::post(io_, in_memory(memory_, [this] { handle_events(); }));
}

void Worker::go_on(Session& session, bool only_input) noexcept {
    try {
        if (session.go_on(only_input)) return;
    } catch (const std::bad_alloc&) {
        context_.warnings.warn("out of memory: a connection was cut off");
    }
    context_.sessions.erase(session.place());
}

void Worker::hand_over(Fd client) {
    asio::post(io_, [this, client = std::move(client)]() mutable {
        try {
            serve(std::move(client));
        } catch (const std::bad_alloc&) {
            count_refused();  // now that the socket is closed: the accept loop may wait for its descriptor
            throw;
        }
    });
}

void Worker::count_refused() {
    increase(context_.counters.refused, 1);
    context_.connection_ended();
}

bool Worker::has_turned() {
    if (turn_is_due_.exchange(true)) return false;
    asio::post(io_, in_memory(memory_, [this] { turn_is_due_ = false; }));
    return true;
}

void Worker::sweep() {
    auto& sessions = context_.sessions;
    for (auto next = sessions.begin(); next != sessions.end();) {
        const auto session = next++;
        if (!session->has_timed_out()) continue;
        increase(context_.counters.timed_out, 1);
        sessions.erase(session);
    }
    sweep_timer_.expires_after(std::chrono::seconds(1));
    sweep_timer_.async_wait(in_memory(memory_, [this](error_code) { sweep(); }));
}

}  // namespace echo_server
