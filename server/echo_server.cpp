// SPDX-License-Identifier: BSD-2-Clause
#include "echo_server.h"

#include <sys/socket.h>

#include <cerrno>
#include <new>
#include <utility>

#include "endpoint.h"
#include "log.h"

using asio::ip::tcp;
using std::error_code;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace {

tcp family_of(const Fd& socket) {
    int family = AF_INET6;
    socklen_t size = sizeof(family);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_DOMAIN, &family, &size);
    return family == AF_INET ? tcp::v4() : tcp::v6();
}

}  // namespace

EchoServer::EchoServer(Fd listener, Settings settings, echo_counters& counters)
    : sessions_(counters, settings.idle_timeout > 0s), settings_(settings) {
    sessions_.on_session_end = [this] { on_session_end(); };
    acceptor_.assign(family_of(listener), listener.get());
    [[maybe_unused]] const int owned_by_acceptor = listener.release();
    acceptor_.non_blocking(true);
    // Or Asio swallows ECONNABORTED and blocks until the next arrival, though other clients may be queued already.
    acceptor_.set_option(asio::socket_base::enable_connection_aborted(true));
    pause_accepting(0ms);  // not yet wait_for_clients(): Asio's timer queue takes its memory at the first use
    if (sessions_.track_idle) end_idle_sessions();
}

EchoServer::~EchoServer() {
    sessions_.on_session_end = nullptr;  // sessions end with io_, when most of this object is gone
}

void EchoServer::run() {
    for (;;) {
        try {
            io_.run();
            return;
        } catch (const std::bad_alloc&) {
            // It came out of the handler that owned a session, which ended with it. The others go on.
            warn("out of memory: a connection was cut off");
        }
    }
}

void EchoServer::drain(std::chrono::seconds timeout, Queue queue) {
    draining_ = true;
    drain_limit_.expires_after(timeout);
    drain_limit_.async_wait(InMemory(drain_memory_, [this](error_code) { stop(); }));
    // The accept loop waits for one of these, and then goes on as is right in a drain.
    acceptor_.cancel();
    accept_pause_.cancel();
    if (queue == Queue::left_to_another_process) acceptor_.close();
    // At once, so that the listener is closed and open_connections() tells how many there are to wait for.
    while (acceptor_.is_open() && steady_clock::now() < drain_limit_.expiry() && !accept_some()) continue;
}

void EchoServer::wait_for_clients() {
    acceptor_.async_wait(tcp::acceptor::wait_read, InMemory(accept_memory_, [this](error_code) { accept_clients(); }));
}

void EchoServer::accept_clients() {
    if (!acceptor_.is_open()) return stop_when_drained();
    const auto error = accept_some();
    if (!acceptor_.is_open()) return stop_when_drained();
    if (!error || error == asio::error::would_block) return wait_for_clients();
    // First, as there may be no memory for the message. The end of a connection ends the pause.
    pause_accepting(is_full() ? 24h : 100ms);
    if (is_full())
        warn(fmt::format("as many connections as are allowed ({}) are open; newcomers wait", max_connections_));
    else
        warn(fmt::format("accepting a connection: {}; {} are open, newcomers wait", error.message(),
                         open_connections()));
}

error_code EchoServer::accept_some() {
    constexpr int most = 256;  // then it is the open connections' turn
    try {
        for (int i = 0; i < most; ++i) {
            if (is_full()) return asio::error::no_descriptors;
            error_code error;
            tcp::endpoint peer;
            tcp::socket client(io_);
            acceptor_.accept(client, peer, error);
            if (!error) {
                start_session(std::move(client), peer);
                continue;
            }
            if (error == asio::error::connection_aborted) continue;  // that client is gone, the next may be there
            // Not before the queue is empty: to their clients its connections are made, and closing resets them.
            if (draining_ && error == asio::error::would_block) acceptor_.close();
            return error;
        }
    } catch (const std::bad_alloc&) {
        return asio::error::no_memory;
    }
    return {};
}

void EchoServer::pause_accepting(std::chrono::milliseconds duration) {
    accept_pause_.expires_after(duration);
    accept_pause_.async_wait(InMemory(accept_memory_, [this](error_code) { accept_clients(); }));
}

void EchoServer::start_session(tcp::socket client, const tcp::endpoint& peer) {
    auto& counters = sessions_.counters;
    add(counters.accepted, 1);
    try {
        if (settings_.log_connections) {
            error_code error;
            const auto dialled = client.local_endpoint(error);
            log_line("connection from {} to {}", to_string(peer), to_string(dialled));
        }
        EchoSession::start(std::move(client), sessions_);
    } catch (const std::bad_alloc&) {
        add(counters.refused, 1);
        throw;
    }
}

void EchoServer::end_idle_sessions() {
    const auto now = steady_clock::now();
    const auto& sessions = sessions_.by_idleness;
    while (!sessions.empty() && sessions.front()->last_active() + settings_.idle_timeout <= now)
        sessions.front()->time_out();
    const auto oldest = sessions.empty() ? now : sessions.front()->last_active();
    idle_check_.expires_at(oldest + settings_.idle_timeout);
    idle_check_.async_wait(InMemory(idle_memory_, [this](error_code) { end_idle_sessions(); }));
}

void EchoServer::on_session_end() {
    accept_pause_.cancel();  // what the accept loop was short of may be there now
    stop_when_drained();
}

void EchoServer::stop_when_drained() {
    if (draining_ && !acceptor_.is_open() && open_connections() == 0) stop();
}

void EchoServer::warn(std::string_view problem) noexcept {
    const auto now = steady_clock::now();
    if (now < next_warning_) return;
    next_warning_ = now + 1s;
    log_problem(problem);
}
