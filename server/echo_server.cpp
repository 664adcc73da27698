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

EchoServer::EchoServer(Fd listener, bool log_connections) : log_connections_(log_connections) {
    sessions_.on_session_end = [this] { on_session_end(); };
    acceptor_.assign(family_of(listener), listener.get());
    [[maybe_unused]] const int owned_by_acceptor = listener.release();
    acceptor_.non_blocking(true);
    // Or Asio swallows ECONNABORTED and waits for the next arrival, though other clients may be queued already.
    acceptor_.set_option(asio::socket_base::enable_connection_aborted(true));
    accept();
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

void EchoServer::drain(std::chrono::seconds timeout) {
    draining_ = true;
    drain_limit_.expires_after(timeout);
    drain_limit_.async_wait([this](error_code) { stop(); });
    // The accept loop waits for one of these, and then goes on as is right in a drain.
    acceptor_.cancel();
    accept_pause_.cancel();
    accept_queued();  // now, so that open_connections() tells how many there are to wait for
}

void EchoServer::accept() {
    acceptor_.async_accept(peer_, [this](error_code error, tcp::socket client) {
        if (!error) start_session(std::move(client), peer_);
        // ECONNABORTED: that client is gone, the next may be there. All else is short of something: wait for it.
        if (error && error != asio::error::connection_aborted && error != asio::error::operation_aborted)
            pause_accepting(error);
        else
            accept_more();
    });
}

void EchoServer::accept_more() {
    if (!draining_) return accept();
    if (const auto error = accept_queued()) return pause_accepting(error);
    stop_when_drained();
}

error_code EchoServer::accept_queued() {
    // To their clients these connections are made already; closing the listener before would reset them.
    while (acceptor_.is_open() && steady_clock::now() < drain_limit_.expiry()) {
        error_code error;
        tcp::socket client(io_);
        tcp::endpoint peer;
        acceptor_.accept(client, peer, error);
        if (!error)
            start_session(std::move(client), peer);
        else if (error == asio::error::would_block)
            acceptor_.close();
        else if (error != asio::error::connection_aborted)
            return error;
    }
    return {};
}

void EchoServer::pause_accepting(error_code error) {
    warn("accepting a connection: {}; {} are open, newcomers wait{}", error.message(), sessions_.open_sessions,
         error.value() == EMFILE ? "; a higher 'ulimit -n' lets more in" : "");
    accept_pause_.expires_after(100ms);
    accept_pause_.async_wait([this](error_code) { accept_more(); });
}

void EchoServer::start_session(tcp::socket client, const tcp::endpoint& peer) {
    if (log_connections_) {
        error_code error;
        const auto dialled = client.local_endpoint(error);
        log_line("connection from {} to {}", to_string(peer), to_string(dialled));
    }
    try {
        EchoSession::start(std::move(client), sessions_);
    } catch (const std::bad_alloc&) {
        warn("out of memory: a connection was refused");
    }
}

void EchoServer::on_session_end() {
    accept_pause_.cancel();  // what the accept loop was short of may be there now
    stop_when_drained();
}

void EchoServer::stop_when_drained() {
    if (draining_ && !acceptor_.is_open() && sessions_.open_sessions == 0) stop();
}

template <typename... Args>
void EchoServer::warn(fmt::format_string<Args...> format, Args&&... args) {
    const auto now = steady_clock::now();
    if (now < next_warning_) return;
    next_warning_ = now + 1s;
    log_problem(format, std::forward<Args>(args)...);
}
