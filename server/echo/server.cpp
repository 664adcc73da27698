// SPDX-License-Identifier: BSD-2-Clause
#include "echo/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <asio/post.hpp>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "echo/counters.h"
#include "net/endpoint.h"
#include "net/listener.h"

namespace echo_server {

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

[[noreturn]] void fail_to_start(std::size_t threads, const error_code& why, std::string_view hint) {
    throw std::runtime_error(fmt::format("starting {} thread{}: {}: {}{}", threads, threads == 1 ? "" : "s",
                                         why.message(), hint, threads == 1 ? "" : ", or ask for fewer with --threads"));
}

[[noreturn]] void fail_without_listener() {
    throw std::runtime_error(
        "the listening socket was destroyed from outside (by 'ss -K', say): the ports are closed. The server ends, so that "
        "it can be started anew");
}

std::vector<std::unique_ptr<Worker>> make_workers(const Fd& listener, std::span<echo_counters> counters,
                                                  std::chrono::seconds idle_timeout) {
    std::vector<std::unique_ptr<Worker>> workers;
    try {
        for (auto& one : counters) workers.push_back(std::make_unique<Worker>(family_of(listener), one, idle_timeout));
    } catch (const std::system_error& error) {
        fail_to_start(counters.size(), error.code(),
                      "each needs five descriptors: raise the limit ('ulimit -n', or LimitNOFILE in the systemd unit)");
    }
    return workers;
}

}  // namespace

EchoServer::EchoServer(Fd listener, Settings settings, std::span<echo_counters> counters)
    : workers_(make_workers(listener, counters, settings.idle_timeout)),
      acceptor_(io()),
      accept_pause_(io()),
      drain_limit_(io()),
      settings_(settings) {
    workers_.front()->on_session_end([this] { on_session_end(); });
    for (std::size_t i = 1; i < workers_.size(); ++i)
        workers_[i]->on_session_end([this] { on_session_end_elsewhere(); });
    acceptor_.assign(family_of(listener), listener.get());
    [[maybe_unused]] const int owned_by_acceptor = listener.release();
    acceptor_.non_blocking(true);
    pause_accepting(0ms);  // not yet wait_for_clients(): Asio's timer queue takes its memory at the first use
}

EchoServer::~EchoServer() {
    join_threads();
    // Sessions end with their workers, when most of this object is gone.
    for (auto& worker : workers_) worker->on_session_end(nullptr);
}

void EchoServer::start_threads() {
    try {
        for (std::size_t i = 1; i < workers_.size(); ++i) workers_[i]->start_thread();
    } catch (const std::system_error& error) {
        fail_to_start(workers_.size(), error.code(),
                      "allow this user more ('ulimit -u', or TasksMax in the systemd unit)");
    }
}

void EchoServer::join_threads() {
    stop();
    for (auto& worker : workers_) worker->join();
}

void EchoServer::run() {
    workers_.front()->run();
    join_threads();
}

void EchoServer::stop() {
    for (auto& worker : workers_) worker->stop();
}

std::size_t EchoServer::open_connections() const {
    std::uint64_t open = 0;
    for (const auto& worker : workers_) open += read(worker->counters().open, std::memory_order_seq_cst);
    return open;
}

void EchoServer::drain(std::chrono::seconds timeout, Queue queue, std::function<bool()> handshakes_under_way) {
    draining_ = true;
    handshakes_under_way_ = std::move(handshakes_under_way);
    ends_matter_ = true;
    drain_limit_.expires_after(timeout);
    drain_limit_.async_wait(InMemory(drain_memory_, [this](error_code) { stop(); }));
    // The accept loop waits for one of these, and then goes on as is right in a drain.
    acceptor_.cancel();
    accept_pause_.cancel();
    if (queue == Queue::left_to_another_process) acceptor_.close();
    // At once, so that the listener is closed and open_connections() tells how many there are to wait for.
    error_code ignored;
    while (steady_clock::now() < drain_limit_.expiry() && acceptor_.is_open() && accept_some(ignored) == Accepted::some)
        continue;
}

void EchoServer::wait_for_clients() {
    acceptor_.async_wait(tcp::acceptor::wait_read, InMemory(accept_memory_, [this](error_code) {
                             // Behind whatever else has come: it may be the word to leave them to another process.
                             asio::post(io(), InMemory(accept_memory_, [this] { accept_clients(); }));
                         }));
}

void EchoServer::accept_clients() {
    ends_matter_ = draining_;
    if (!acceptor_.is_open()) return stop_when_drained();
    error_code error;
    const auto accepted = accept_some(error);
    if (!acceptor_.is_open()) return stop_when_drained();
    // The pause comes before the message, for which there may be no memory.
    switch (accepted) {
        case Accepted::all:
            if (draining_) return pause_accepting(handshake_pause_);
            return wait_for_clients();
        case Accepted::some:
            // If these were all, a drain must not wait for more.
            if (draining_) return pause_accepting(0ms);
            return wait_for_clients();
        case Accepted::as_many_as_allowed:
            ends_matter_ = true;
            pause_accepting(24h);
            if (!is_full()) accept_pause_.cancel();  // one that ended just now did not know that it matters
            return warnings_.warn(
                fmt::format("as many connections as are allowed ({}) are open; newcomers wait", max_connections_));
        case Accepted::failed:
            pause_accepting(100ms);
            return warnings_.warn(fmt::format("accepting a connection: {}; {} are open, newcomers wait",
                                              error.message(), open_connections()));
    }
}

EchoServer::Accepted EchoServer::accept_some(error_code& error) {
    constexpr int most = 256;  // then it is the open connections' turn
    try {
        // Before the queue is looked at: who is about to get into it could do so in between.
        const bool close_if_empty = draining_ && !more_to_come();
        for (int i = 0; i < most; ++i) {
            if (is_full()) return Accepted::as_many_as_allowed;
            Fd client = accept_one();
            if (client) {
                start_session(std::move(client));
                continue;
            }
            if (errno == ECONNABORTED) continue;  // that client is gone, the next may be there
            error.assign(errno, asio::error::get_system_category());
            const bool destroyed = error == asio::error::invalid_argument && !is_listening(acceptor_.native_handle());
            if (destroyed && !draining_) fail_without_listener();
            if (!destroyed && error != asio::error::would_block) return Accepted::failed;
            // Not before the queue is empty: to their clients its connections are made, and closing resets them.
            if (close_if_empty || destroyed) acceptor_.close();
            return Accepted::all;
        }
    } catch (const std::bad_alloc&) {
        error = asio::error::no_memory;
        return Accepted::failed;
    }
    return Accepted::some;
}

// Whether clients are about to get into the queue. To one whose last ACK is on its way, the connection is made.
bool EchoServer::more_to_come() {
    constexpr auto least = 10ms;
    const auto before = steady_clock::now();
    const bool more = handshakes_under_way_ && handshakes_under_way_();
    // The kernel looks through all sockets of the host for it: for no more than a tenth of the time.
    const auto cost = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - before);
    handshake_pause_ = std::max<std::chrono::milliseconds>(least, 9 * cost);
    return more;
}

Fd EchoServer::accept_one() {
    constexpr int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (!settings_.log_connections) return Fd(::accept4(acceptor_.native_handle(), nullptr, nullptr, flags));
    // As accept() names it: the socket can't tell any more if the client has reset the connection since.
    tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    Fd client(::accept4(acceptor_.native_handle(), peer.data(), &size, flags));
    if (!client) return client;
    peer.resize(size);
    log_line("connection from {} to {}", to_string(peer), to_string(echo_server::local_endpoint(client)));
    return client;
}

void EchoServer::start_session(Fd client) {
    auto& counters = workers_.front()->counters();
    add(counters.accepted, 1);
    add(counters.open, 1);
    auto& worker = *workers_[next_worker_];
    next_worker_ = (next_worker_ + 1) % workers_.size();
    if (&worker == workers_.front().get()) return worker.serve(std::move(client));
    try {
        worker.hand_over(std::move(client));
    } catch (const std::bad_alloc&) {
        add(counters.refused, 1);
        add(counters.open, -1);
        throw;
    }
}

void EchoServer::pause_accepting(std::chrono::milliseconds duration) {
    accept_pause_.expires_after(duration);
    accept_pause_.async_wait(InMemory(accept_memory_, [this](error_code) { accept_clients(); }));
}

void EchoServer::on_session_end() {
    if (!ends_matter_) return;
    accept_pause_.cancel();
    stop_when_drained();
}

void EchoServer::on_session_end_elsewhere() noexcept {
    if (!ends_matter_ || end_posted_.exchange(true)) return;
    asio::post(io(), InMemory(end_memory_, [this] {
                   end_posted_ = false;
                   on_session_end();
               }));
}

void EchoServer::stop_when_drained() {
    if (draining_ && !acceptor_.is_open() && open_connections() == 0) stop();
}

}  // namespace echo_server
