// SPDX-License-Identifier: BSD-2-Clause
#include "echo_server.h"

#include <sys/socket.h>

#include <asio/post.hpp>
#include <cerrno>
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
    const auto family = family_of(listener);
    acceptor_.assign(family, listener.release());
    acceptor_.non_blocking(true);
    // Or Asio swallows ECONNABORTED and waits for the next arrival, though other clients may be queued already.
    acceptor_.set_option(asio::socket_base::enable_connection_aborted(true));
    accept();
}

EchoServer::~EchoServer() {
    sessions_.on_session_end = nullptr;  // sessions end with io_, when most of this object is gone
}

void EchoServer::drain(std::chrono::seconds timeout) {
    const auto deadline = steady_clock::now() + timeout;
    draining_ = true;
    // To their clients these are made already; closing the listener would reset them.
    for (error_code error; !error && steady_clock::now() < deadline;) {
        tcp::socket client(io_);
        acceptor_.accept(client, error);
        if (!error) start_session(std::move(client));
        if (error == asio::error::connection_aborted) error.clear();
    }
    acceptor_.close();

    drain_limit_.expires_at(deadline);
    drain_limit_.async_wait([this](error_code) { stop(); });
    // Behind the handler of a connection that async_accept may have taken already.
    asio::post(io_, [this] { stop_when_drained(); });
}

void EchoServer::accept() {
    acceptor_.async_accept([this](error_code error, tcp::socket client) {
        if (!error) start_session(std::move(client));
        if (!acceptor_.is_open()) return;
        // ECONNABORTED: that client is gone, the next may be there. All else is short of something: wait for it.
        if (error && error != asio::error::connection_aborted)
            pause_accepting(error);
        else
            accept();
    });
}

void EchoServer::start_session(tcp::socket client) {
    if (log_connections_) {
        error_code from_error;
        error_code to_error;
        const auto from = client.remote_endpoint(from_error);
        const auto to = client.local_endpoint(to_error);
        if (!from_error && !to_error) log_line("connection from {} to {}", to_string(from), to_string(to));
    }
    EchoSession::start(std::move(client), sessions_);
}

void EchoServer::pause_accepting(error_code error) {
    const auto now = steady_clock::now();
    if (now >= next_complaint_) {
        next_complaint_ = now + 1s;
        log_problem("accepting a connection: {}; {} are open, newcomers wait{}", error.message(), sessions_.open,
                    error.value() == EMFILE ? "; a higher 'ulimit -n' lets more in" : "");
    }
    accept_pause_.expires_after(100ms);
    accept_pause_.async_wait([this](error_code) {
        if (acceptor_.is_open()) accept();
    });
}

void EchoServer::on_session_end() {
    accept_pause_.cancel();  // what the accept loop was short of may be there now
    if (draining_) stop_when_drained();
}

void EchoServer::stop_when_drained() {
    if (sessions_.open == 0) stop();
}
