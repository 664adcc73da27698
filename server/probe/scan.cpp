// SPDX-License-Identifier: BSD-2-Clause
#include "probe/scan.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "net/sockets.h"

namespace echo_server {

using namespace std::chrono_literals;

namespace {

constexpr auto sweep_period = 10ms;

// For a connect(2) that fails at once: the reason is this host, not the network.
[[noreturn]] void fail_here(const asio::ip::tcp::endpoint& peer, int error) {
    const auto address = peer.address();
    const bool needs_zone = error == EINVAL && address.is_v6() && address.to_v6().is_link_local();
    const auto* const hint =
        needs_zone                          ? "a link-local address needs its zone: fe80::1%eth0"
        : error == EPERM || error == EACCES ? "a filter or a policy of this host forbids it"
        : error == ENETUNREACH || error == EHOSTUNREACH
            ? "this host has no route to it: see 'ip route get'"
            : "this host lacks a resource: connect to fewer ports at a time, or slower (--parallel, --rate)";
    throw std::runtime_error(
        fmt::format("connecting to {} port {}: {}; {}", address.to_string(), peer.port(), error_text(error), hint));
}

}  // namespace

Scan::Scan(asio::ip::address address, std::string_view payload, const ProbeOptions& options, Progress progress)
    : address_(std::move(address)),
      payload_(payload),
      options_(options),
      progress_(std::move(progress)),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      max_open_(std::min<std::size_t>(connection_limit({}), 32768)) {}

bool Scan::run(std::span<const std::uint16_t> ports, const Pace& pace) {
    ports_ = ports;
    pace_ = pace;
    next_ = done_ = 0;
    now_ = next_start_ = Clock::now();
    const auto begin = now_;
    auto next_sweep = now_;
    std::array<epoll_event, 256> events{};
    bool goes_on = true;
    while (goes_on && done_ < ports.size()) {
        const auto wait = start_some() ? 0ms : sweep_period;
        const int ready = ::epoll_wait(epoll_.get(), events.data(), events.size(), static_cast<int>(wait.count()));
        now_ = Clock::now();
        for (const auto& event : std::span(events).first(static_cast<std::size_t>(std::max(ready, 0))))
            handle(connections_[static_cast<std::size_t>(event.data.fd)], event.events);
        if (now_ < next_sweep) continue;
        sweep();
        next_sweep = now_ + sweep_period;
        goes_on = progress_(done_, ports.size(), now_ - begin);
    }
    for (auto& connection : connections_) {
        if (connection.phase == (connection.was_held ? Phase::exchanging : Phase::holding))  // it has echoed once
            finish(connection, Verdict::echoed, "once, before the probe was ended");
        if (connection.phase != Phase::none) close(connection);
    }
    return goes_on;
}

bool Scan::start_some() {
    // After so many connects in a row without an answer, check whether a port that has answered still answers.
    constexpr std::size_t most_unanswered = 1024;
    if (unanswered_ >= most_unanswered && answering_port_ != 0) {
        if (now_ >= next_start_) start(answering_port_, true);
        return false;
    }
    for (int i = 0; i < 64; ++i) {  // then serve the open ones
        if (next_ == ports_.size() || open_ == max_open_ || open_ - waiting_ >= pace_.at_once || now_ < next_start_)
            return false;
        start(ports_[next_], false);
        ++next_;
        next_start_ = std::max(next_start_, now_ - 2 * sweep_period) +
                      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / pace_.rate));
    }
    return true;
}

void Scan::start(std::uint16_t port, bool is_check) {
    const asio::ip::tcp::endpoint peer(address_, port);
    const int family = address_.is_v4() ? AF_INET : AF_INET6;
    Fd socket = checked(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP), "opening a socket");
    keep_icmp_errors(socket.get(), family);
    if (::connect(socket.get(), peer.data(), static_cast<socklen_t>(peer.size())) != 0 && errno != EINPROGRESS)
        fail_here(peer, errno);
    epoll_event wanted{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.fd = socket.get()}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &wanted) != 0) fail("epoll_ctl");
    // A connection that both sides have closed stays in the table of a router for minutes. So if the ports are many,
    // close only a sample in this way, to see whether the end gets through, and reset the others.
    const bool is_polite = ports_.size() <= many_ports || next_ % (ports_.size() / sample_of_many) == 0;
    const auto place = static_cast<std::size_t>(socket.get());
    connections_.resize(std::max(connections_.size(), place + 1));
    connections_[place] = {.socket = std::move(socket),
                           .port = port,
                           .phase = Phase::connecting,
                           .is_check = is_check,
                           .is_polite = is_polite,
                           .started = now_,
                           .deadline = now_ + std::chrono::seconds(options_.timeout > 0 ? options_.timeout : 2)};
    ++open_;
    if (is_check) next_start_ = Clock::time_point::max();  // until it ends
}

void Scan::handle(Connection& connection, std::uint32_t events) {
    int error = 0;
    socklen_t size = sizeof(error);
    if ((events & EPOLLERR) != 0) ::getsockopt(connection.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (connection.phase == Phase::connecting) {
        unanswered_ = 0;
        if (connection.is_check) return close(connection);
        // If the kernel has chosen the same local port, the socket is connected to itself: nobody listens there.
        if (local_endpoint(connection.socket.get()) == asio::ip::tcp::endpoint(address_, connection.port))
            error = ECONNREFUSED;
        if (error != 0) return fail_to_connect(connection, error);
        answering_port_ = connection.port;
        answer_time_ += (now_ - connection.started - answer_time_) / 8;
        begin_exchange(connection);
    } else if ((events & EPOLLOUT) != 0 && error == 0) {
        send(connection);
    }
    if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) receive(connection, error);
}

void Scan::fail_to_connect(Connection& connection, int error) {
    const auto icmp = take_icmp_error(connection.socket.get());
    if (!icmp.empty()) return finish(connection, Verdict::unreachable, icmp);
    if (error == ECONNREFUSED)
        return finish(connection, Verdict::refused, keeps_icmp_errors() ? "" : "or the port is unreachable (ICMP)");
    if (error == ECONNRESET || error == EPIPE) return receive(connection, error);
    if (error == ETIMEDOUT) return finish(connection, Verdict::filtered);
    finish(connection, Verdict::unreachable, error_text(error));
}

void Scan::begin_exchange(Connection& connection) {
    set_waiting(connection, false);
    connection.phase = Phase::exchanging;
    connection.started = now_;
    results_[connection.port].sent += std::exchange(connection.sent, 0);
    connection.received = 0;
    progressed(connection);
    send(connection);
}

void Scan::send(Connection& connection) {
    while (connection.sent < payload_.size()) {
        const auto rest = payload_.substr(connection.sent);
        const auto sent = ::send(connection.socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return;
        if (sent < 0) return receive(connection, errno);
        connection.sent += static_cast<std::uint32_t>(sent);
        progressed(connection);
    }
}

// Bytes that came before an `error` of the socket can still be received.
void Scan::receive(Connection& connection, int error) {
    while (connection.phase != Phase::none) {
        const auto size = ::recv(connection.socket.get(), buffer_.data(), buffer_.size(), 0);
        if (size > 0) {
            take(connection, {buffer_.data(), static_cast<std::size_t>(size)});
            continue;
        }
        if (error == 0 && size < 0) error = errno;
        if (error == EAGAIN) return;
        ended(connection, error);
    }
}

void Scan::take(Connection& connection, std::string_view bytes) {
    const auto expected = payload_.substr(connection.received, bytes.size());  // mostly equal, and == is faster
    const auto* const end = bytes == expected ? bytes.end() : std::ranges::mismatch(bytes, expected).in1;
    const auto same = static_cast<std::size_t>(end - bytes.begin());
    // Bytes that come late show that the path is slow, not that it drops data: do not fill it with more connections.
    if (connection.received == 0 && now_ - connection.started > usual_wait()) silent_ = 0;
    set_waiting(connection, false);
    connection.received += static_cast<std::uint32_t>(same);
    const bool is_all = connection.received == payload_.size();
    if (same < bytes.size()) {
        const auto where = fmt::format("{}at byte {}: ", is_all ? "after all, " : "", connection.received);
        return finish(connection, Verdict::altered, where + quote(bytes.substr(same)));
    }
    progressed(connection);
    if (!is_all) return;
    if (options_.hold > 0 && !connection.was_held) {
        connection.phase = Phase::holding;
        connection.deadline = now_ + std::chrono::seconds(options_.hold);
        return set_waiting(connection, true);
    }
    if (!connection.is_polite) return finish(connection, Verdict::echoed);
    ::shutdown(connection.socket.get(), SHUT_WR);
    connection.phase = Phase::ending;
}

// A peer that sends a byte now and then must not delay the probe for hours.
void Scan::progressed(Connection& connection) {
    const std::chrono::seconds timeout(options_.timeout > 0 ? options_.timeout : 5);
    const auto limit = 12 * timeout + std::chrono::seconds(payload_.size() / 16384);
    connection.deadline = std::min(now_ + timeout, connection.started + limit);
}

void Scan::set_waiting(Connection& connection, bool is_waiting) {
    waiting_ += is_waiting ? 1 : 0;
    waiting_ -= std::exchange(connection.is_waiting, is_waiting) ? 1 : 0;
}

std::chrono::nanoseconds Scan::usual_wait() const { return answer_time_ + answer_time_ / 2 + 2 * sweep_period; }

void Scan::sweep() {
    const auto usual = usual_wait();
    // If a firewall drops the data of each connection, waiting for the bytes of a few at a time would take minutes.
    const bool drops_data = silent_ >= pace_.at_once;
    for (auto& connection : connections_) {
        const bool connects = connection.phase == Phase::connecting;
        const bool may_wait =
            connects || (drops_data && connection.phase == Phase::exchanging && connection.received == 0);
        if (may_wait && !pace_.is_strict && !connection.is_waiting && now_ - connection.started > usual) {
            set_waiting(connection, true);
            if (connects) ++unanswered_;
        }
        if (connection.phase != Phase::none && now_ >= connection.deadline) time_out(connection);
    }
}

void Scan::time_out(Connection& connection) {
    if (connection.is_check) {
        // Routers have limits: of their tables, and of the rate of new connections.
        close(connection);
        next_start_ = now_ + std::chrono::seconds(5);
        pace_.at_once = std::max(pace_.at_once / 2, std::min<std::size_t>(pace_.at_once, 16));
        if (++failed_checks_ >= 3) answering_port_ = 0;
        return;
    }
    if (connection.phase == Phase::connecting) return finish(connection, Verdict::filtered);
    if (connection.phase == Phase::exchanging) {
        if (connection.received == 0) ++silent_;
        return finish(connection, Verdict::silent, progress_of(connection));
    }
    if (connection.phase == Phase::ending) return finish(connection, Verdict::echoed, "but the end did not come");
    connection.was_held = true;
    begin_exchange(connection);
}

std::string Scan::progress_of(const Connection& connection) const {
    const bool was_idle = connection.was_held || connection.phase == Phase::holding;
    return fmt::format("{} of {} bytes{}", connection.received, payload_.size(), was_idle ? ", once it was idle" : "");
}

// The peer has closed or reset the connection, or an ICMP error came.
void Scan::ended(Connection& connection, int error) {
    const bool is_reset = error == ECONNRESET || error == EPIPE;
    const std::string how = error == 0 ? "closed" : is_reset ? "reset" : fmt::format("ICMP ({})", error_text(error));
    if (connection.phase == Phase::ending)
        finish(connection, Verdict::echoed, error == 0 ? "" : "but no clean end: " + how);
    else
        finish(connection, Verdict::cut, fmt::format("{} after {}", how, progress_of(connection)));
}

void Scan::finish(Connection& connection, Verdict verdict, std::string detail) {
    auto& result = results_[connection.port];
    ++result.tries;
    result.sent += connection.sent;
    if (verdict != Verdict::filtered || result.verdict == Verdict::not_probed) {
        result.verdict = verdict;
        result.detail = std::move(detail);
    }
    ++done_;
    close(connection);
}

// Resets the connection, so that routers forget it, unless both sides have closed it already.
void Scan::close(Connection& connection) {
    const linger reset{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(connection.socket.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    connection.socket = Fd();
    connection.phase = Phase::none;
    set_waiting(connection, false);
    if (connection.is_check) next_start_ = now_;
    --open_;
}

}  // namespace echo_server
