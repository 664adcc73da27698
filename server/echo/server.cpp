// SPDX-License-Identifier: BSD-2-Clause
#include "echo/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "echo/session.h"
#include "net/address.h"
#include "net/sockets.h"

using asio::posix::stream_descriptor;
using std::error_code;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace echo_server {
namespace {

constexpr std::chrono::milliseconds no_pause{0};
constexpr std::chrono::milliseconds until_an_end = 24h;  // on_connection_end() ends it

std::vector<std::unique_ptr<Worker>> make_workers(std::span<echo_counters> counters,
                                                  std::span<echo_port_stats> port_stats,
                                                  std::chrono::seconds idle_timeout,
                                                  const asio::ip::tcp::endpoint& own) {
    std::vector<std::unique_ptr<Worker>> workers;
    try {
        for (auto& of_thread : counters)
            workers.push_back(std::make_unique<Worker>(of_thread, port_stats, idle_timeout, own));
    } catch (const std::system_error& error) {
        fail(fmt::format("starting {}", plural(counters.size(), "thread")), error.code().value());
    }
    return workers;
}

}  // namespace

EchoServer::EchoServer(Fd listener, std::span<echo_counters> counters, std::span<echo_port_stats> port_stats,
                       std::chrono::seconds idle_timeout, bool log_connections)
    : workers_(make_workers(counters, port_stats, idle_timeout, local_endpoint(listener.get()))),
      listener_(io(), listener.release()),
      accept_pause_(io()),
      drain_limit_(io()),
      log_connections_(log_connections) {
    for (auto& worker : workers_) worker->on_connection_end([this] { on_connection_end(); });
    listener_.non_blocking(true);
    // Starts with a pause of 0: the first use of a timer allocates, and later there may be no memory.
    pause_accepting(no_pause);
}

EchoServer::~EchoServer() {
    join_threads();
    // Workers and their sessions end last: by then the members that the callback uses are gone.
    for (auto& worker : workers_) worker->on_connection_end(nullptr);
}

void EchoServer::start_threads() {
    for (std::size_t i = 1; i < workers_.size(); ++i)
        threads_.push_back(start_thread([&of = *workers_[i]] { of.run(); }));
}

void EchoServer::join_threads() {
    stop();
    for (auto& thread : threads_) thread.join();
    threads_.clear();
}

void EchoServer::run() {
    workers_.front()->run();
    join_threads();
}

bool EchoServer::all_threads_have_turned() {
    // Not all_of(), which would not ask the others after the first that has not turned.
    return std::ranges::count_if(workers_, [](const auto& worker) { return !worker->has_turned(); }) == 0;
}

void EchoServer::stop() {
    for (auto& worker : workers_) worker->stop();
}

void EchoServer::drain(std::chrono::seconds timeout, bool leave_backlog) {
    draining_ = true;
    drain_limit_.expires_after(timeout);
    drain_limit_.async_wait(in_memory(memory(), [this](error_code) { stop(); }));
    // The accept loop waits for one of these two. It wakes, and sees that this is a drain.
    listener_.cancel();
    accept_pause_.cancel();
    if (leave_backlog) listener_.close();
    // Accepts now, so that the caller knows how many connections a drain waits for.
    while (listener_.is_open() && steady_clock::now() < drain_limit_.expiry() && accept_some() == no_pause) continue;
}

void EchoServer::accept_clients() {
    const auto pause = accept_some();
    if (!listener_.is_open() && open_ == 0) return stop();
    if (pause) return pause_accepting(*pause);
    listener_.async_wait(stream_descriptor::wait_read, in_memory(memory(), [this](error_code) {
                             // Posted, so that a handler that is queued already, such as a replacement, runs first.
                             asio::post(io(), in_memory(memory(), [this] { accept_clients(); }));
                         }));
}

std::optional<std::chrono::milliseconds> EchoServer::accept_some() {
    constexpr int max_accepts = 256;
    for (int i = 0; i < max_accepts; ++i) {
        if (!listener_.is_open()) return until_an_end;
        if (open_ >= max_connections_) {
            warnings_.warn("the limit of open connections ({}) is reached; new connections wait", max_connections_);
            return until_an_end;
        }
        const int error = accept_one();
        if (error == 0 || error == ECONNABORTED) continue;  // this client is gone, but there may be others
        const bool destroyed = error == EINVAL && !is_listening(listener());
        if (destroyed && !draining_)
            throw std::runtime_error(fmt::format(
                "{}: the ports are closed. The server ends, so that it can be started again", why_not_listening));
        if (!destroyed && error != EAGAIN) {
            warnings_.warn("accepting a connection: {}; {} are open, new connections wait", error_text(error),
                           open_connections());
            return 100ms;
        }
        // Closes only when the backlog is empty: its clients are connected already, and closing would reset them.
        if (!draining_) return {};
        listener_.close();
    }
    return no_pause;  // other handlers run before the next call
}

int EchoServer::accept_one() {
    constexpr int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    // Not by getpeername(), which fails if the client has reset the connection.
    asio::ip::tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    Fd client(::accept4(listener(), log_connections_ ? peer.data() : nullptr, &size, flags));
    if (!client) return errno;
    ++open_;
    auto& first = *workers_.front();
    auto& worker = *workers_[next_worker_++ % workers_.size()];
    increase(first.counters().accepted, 1);
    try {
        if (log_connections_) {
            peer.resize(size);
            log_line("connection from {} to {}", to_string(peer), to_string(local_endpoint(client.get())));
        }
        if (&worker == &first)
            worker.serve(std::move(client));
        else
            worker.hand_over(std::move(client));
    } catch (const std::bad_alloc&) {
        first.count_refused();
        return ENOMEM;
    }
    return 0;
}

void EchoServer::pause_accepting(std::chrono::milliseconds duration) {
    accept_pause_.expires_after(duration);
    accept_pause_.async_wait(in_memory(memory(), [this](error_code) { accept_clients(); }));
}

// Wakes the accept loop if it waits at the limit, or for the last connection of a drain.
void EchoServer::on_connection_end() noexcept {
    const auto before = open_.fetch_sub(1);
    if (before != max_connections_ && (before != 1 || !draining_)) return;
    if (wakeup_posted_.exchange(true)) return;
    asio::post(io(), in_memory(memory(), [this] {
                   wakeup_posted_ = false;
                   accept_pause_.cancel();
               }));
}

}  // namespace echo_server
