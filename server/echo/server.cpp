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

#include "base/os.h"
#include "base/text.h"
#include "echo/session.h"
#include "net/address.h"
#include "net/listener.h"

using asio::ip::tcp;
using std::error_code;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

namespace echo_server {
namespace {

[[noreturn]] void fail_to_start(std::size_t threads, const error_code& why, std::string_view hint) {
    throw std::runtime_error(fmt::format("starting {}: {}{}{}{}", plural(threads, "thread"), error_text(why.value()),
                                         hint.empty() ? "" : ": ", hint,
                                         hint.empty() || threads == 1 ? "" : ", or ask for fewer with --threads"));
}

[[noreturn]] void fail_without_listener() {
    throw std::runtime_error(
        "the listening socket was destroyed from outside (for example by 'ss -K'): the ports are closed. The "
        "server ends, so that "
        "it can be started anew");
}

std::vector<std::unique_ptr<Worker>> make_workers(std::span<echo_counters> counters,
                                                  std::span<echo_port_stats> port_stats,
                                                  std::chrono::seconds idle_timeout) {
    std::vector<std::unique_ptr<Worker>> workers;
    try {
        for (auto& of_thread : counters)
            workers.push_back(std::make_unique<Worker>(of_thread, port_stats, idle_timeout));
    } catch (const std::system_error& error) {
        std::string_view hint;
        if (error.code() == std::errc::too_many_files_open)
            hint = "each needs six descriptors: raise the limit ('ulimit -n', or LimitNOFILE in the systemd unit)";
        if (error.code() == std::errc::too_many_files_open_in_system)
            hint = "each needs six descriptors: raise the limit of the host ('sysctl -w fs.file-max=N')";
        fail_to_start(counters.size(), error.code(), hint);
    }
    return workers;
}

}  // namespace

EchoServer::EchoServer(Fd listener, Settings settings, std::span<echo_counters> counters,
                       std::span<echo_port_stats> port_stats)
    : workers_(make_workers(counters, port_stats, settings.idle_timeout)),
      acceptor_(io()),
      accept_pause_(io()),
      drain_limit_(io()),
      settings_(settings) {
    for (auto& worker : workers_) worker->on_connection_end([this] { on_connection_end(); });
    acceptor_.assign(tcp::v6(), listener.get());  // Asio wants a family, and makes no use of it
    [[maybe_unused]] const int owned_by_acceptor = listener.release();
    acceptor_.non_blocking(true);
    // Start with a pause of 0: the first use of a timer allocates, and later there may be no memory.
    pause_accepting(0ms);
}

EchoServer::~EchoServer() {
    join_threads();
    // Sessions end with their workers, when most of this object is gone.
    for (auto& worker : workers_) worker->on_connection_end(nullptr);
}

void EchoServer::start_threads() {
    try {
        for (std::size_t i = 1; i < workers_.size(); ++i) workers_[i]->start_thread();
    } catch (const std::system_error& error) {
        const bool too_many = error.code() == std::errc::resource_unavailable_try_again;
        fail_to_start(workers_.size(), error.code(),
                      too_many ? "allow this user more ('ulimit -u', or TasksMax in the systemd unit)" : "");
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

bool EchoServer::all_threads_have_turned() {
    if (!std::ranges::all_of(workers_, [](const auto& worker) { return worker->has_turned(); })) return false;
    for (auto& worker : workers_) worker->ask_for_turn();
    return true;
}

void EchoServer::stop() {
    for (auto& worker : workers_) worker->stop();
}

void EchoServer::drain(std::chrono::seconds timeout, Backlog backlog) {
    draining_ = true;
    drain_limit_.expires_after(timeout);
    drain_limit_.async_wait(in_memory(drain_memory_, [this](error_code) { stop(); }));
    // The accept loop waits for one of these. It sees then that this is a drain.
    acceptor_.cancel();
    accept_pause_.cancel();
    if (backlog == Backlog::leave) acceptor_.close();
    // Accept now, so that the caller can tell how many connections there are to wait for.
    error_code ignored;
    while (steady_clock::now() < drain_limit_.expiry() && acceptor_.is_open() &&
           accept_some(ignored) == Accepted::turn_over)
        continue;
}

void EchoServer::wait_for_clients() {
    acceptor_.async_wait(tcp::acceptor::wait_read, in_memory(accept_memory_, [this](error_code) {
                             // Posted, not called: a replacement that is already queued must run first.
                             asio::post(io(), in_memory(accept_memory_, [this] { accept_clients(); }));
                         }));
}

void EchoServer::accept_clients() {
    if (!acceptor_.is_open()) return stop_when_drained();
    error_code error;
    const auto accepted = accept_some(error);
    if (!acceptor_.is_open()) return stop_when_drained();
    switch (accepted) {
        case Accepted::backlog_empty: return wait_for_clients();
        case Accepted::turn_over:
            // In a drain these may have been the last clients: nothing would wake the loop.
            if (draining_) return pause_accepting(0ms);
            return wait_for_clients();
        case Accepted::limit_reached:
            pause_accepting(24h);  // on_connection_end() ends it
            return warnings_.warn("as many connections as are allowed ({}) are open; newcomers wait", max_connections_);
        case Accepted::failed:
            pause_accepting(100ms);
            return warnings_.warn("accepting a connection: {}; {} are open, newcomers wait", error_text(error.value()),
                                  open_connections());
    }
}

EchoServer::Accepted EchoServer::accept_some(error_code& error) {
    constexpr int max_accepts = 256;  // then the open connections have their turn
    try {
        for (int i = 0; i < max_accepts; ++i) {
            if (is_full()) return Accepted::limit_reached;
            Fd client = accept_one();
            if (client) {
                start_session(std::move(client));
                continue;
            }
            if (errno == ECONNABORTED) continue;  // that client is gone, the next may be there
            error.assign(errno, asio::error::get_system_category());
            const bool destroyed = error == asio::error::invalid_argument && !is_listening(listener());
            if (destroyed && !draining_) fail_without_listener();
            if (!destroyed && error != asio::error::would_block) return Accepted::failed;
            // Not before the backlog is empty: for its clients the connections are made, and closing would reset them.
            if (draining_) acceptor_.close();
            return Accepted::backlog_empty;
        }
    } catch (const std::bad_alloc&) {
        error = asio::error::no_memory;
        return Accepted::failed;
    }
    return Accepted::turn_over;
}

Fd EchoServer::accept_one() {
    constexpr int flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (!settings_.log_connections) return Fd(::accept4(listener(), nullptr, nullptr, flags));
    // The peer as accept4() returns it: getpeername() fails once the client has reset the connection.
    tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    Fd client(::accept4(listener(), peer.data(), &size, flags));
    if (!client) return client;
    peer.resize(size);
    log_line("connection from {} to {}", to_string(peer), to_string(local_endpoint(client.get())));
    return client;
}

void EchoServer::start_session(Fd client) {
    ++open_;
    auto& first = *workers_.front();
    increase(first.counters().accepted, 1);
    auto& worker = *workers_[next_worker_];
    next_worker_ = (next_worker_ + 1) % workers_.size();
    if (&worker == &first) return worker.serve(std::move(client));
    try {
        worker.hand_over(std::move(client));
    } catch (const std::bad_alloc&) {
        first.count_refused();
        throw;
    }
}

void EchoServer::pause_accepting(std::chrono::milliseconds duration) {
    accept_pause_.expires_after(duration);
    accept_pause_.async_wait(in_memory(accept_memory_, [this](error_code) { accept_clients(); }));
}

// Wakes the accept loop if it waits for this: for room, or for the last connection of a drain.
void EchoServer::on_connection_end() noexcept {
    const auto before = open_.fetch_sub(1);
    if (before != max_connections_ && (before != 1 || !draining_)) return;
    if (wakeup_posted_.exchange(true)) return;
    asio::post(io(), in_memory(wakeup_memory_, [this] {
                   wakeup_posted_ = false;
                   accept_pause_.cancel();
                   stop_when_drained();
               }));
}

void EchoServer::stop_when_drained() {
    if (draining_ && !acceptor_.is_open() && open_ == 0) stop();
}

}  // namespace echo_server
