// SPDX-License-Identifier: BSD-2-Clause
#include "load_client.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <random>
#include <stdexcept>
#include <system_error>

#include "net/address.h"

namespace echo_server {

namespace {

using std::chrono::steady_clock;

constexpr std::size_t most_at_once = 65536;
constexpr std::size_t period = 65521;  // a prime, so that no power of two shifts the pattern onto itself

const char* pattern_at(std::uint64_t place) {
    static const auto pattern = [] {
        std::vector<char> bytes(period + most_at_once);
        std::minstd_rand random(7);
        for (std::size_t i = 0; i < bytes.size(); ++i)
            bytes[i] = i < period ? static_cast<char>(random() >> 8U) : bytes[i - period];
        return bytes;
    }();
    return pattern.data() + place % period;
}

}  // namespace

LoadClient::LoadClient(const Work& work, std::size_t number, int epoll) : work_(work), number_(number), epoll_(epoll) {}

void LoadClient::start() { connect(); }

void LoadClient::go_on() {
    paused_ = false;
    if (!work_.keep_sending && !work_.one_message_each) send_some();
}

void LoadClient::connect() {
    const auto& target = work_.targets[(number_ + connections_++) % work_.targets.size()];
    sent_ = 0;
    received_ = 0;
    watched_ = 0;
    begun_.clear();
    if (work_.one_message_each) begun_.push_back(steady_clock::now());
    socket_ = Fd(::socket(target.protocol().family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket_) fail("opening a socket", errno);
    const int on = 1;
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (::connect(socket_.get(), target.data(), static_cast<socklen_t>(target.size())) != 0 && errno != EINPROGRESS)
        fail("connecting", errno);
    send_some();
}

void LoadClient::handle(std::uint32_t events, Tally& tally) {
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0) receive_some(tally);
    if ((events & EPOLLOUT) != 0) send_some();
}

// The number of bytes that may be sent now. Two messages of a stream are under way, so that the server has one while
// the other is on its way back. Without a limit the sockets' buffers grow until no cache can hold them, or do not grow:
// the same server then needs 15 us for 64 KiB in one run and 60 us in the next.
std::size_t LoadClient::due() const {
    const auto rest =
        work_.keep_sending ? 2 * work_.message - (sent_ - received_) : work_.message - sent_ % work_.message;
    return std::min(most_at_once, rest);
}

void LoadClient::send_some() {
    const auto place = number_ * 7919 + sent_;
    const auto taken = ::send(socket_.get(), pattern_at(place), due(), MSG_NOSIGNAL);
    // ENOTCONN: the connection is still being made.
    if (taken < 0 && errno != EAGAIN && errno != ENOTCONN) fail("sending", errno);
    if (taken > 0) {
        const auto now = steady_clock::now();
        const auto begun_before = (sent_ + work_.message - 1) / work_.message;
        sent_ += static_cast<std::uint64_t>(taken);
        const auto begun_now = (sent_ + work_.message - 1) / work_.message;
        if (!work_.one_message_each) begun_.resize(begun_.size() + (begun_now - begun_before), now);
    }
    const bool more = work_.keep_sending ? due() > 0 : sent_ == 0 || sent_ % work_.message != 0;
    watch(more ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void LoadClient::receive_some(Tally& tally) {
    static std::array<char, most_at_once> buffer;
    const auto count = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) fail("receiving", errno);
    if (count == 0) {
        if (!work_.one_message_each || received_ != work_.message) fail("receiving: the server ended too early", 0);
        finish_message(tally);
        return connect();
    }
    const auto size = static_cast<std::size_t>(count);
    if (received_ + size > sent_) fail("receiving: more came back than was sent", 0);
    if (std::memcmp(buffer.data(), pattern_at(number_ * 7919 + received_), size) != 0)
        fail("receiving: a byte came back altered", 0);
    const auto messages_before = received_ / work_.message;
    received_ += size;
    tally.bytes += size;
    if (work_.one_message_each) {
        if (received_ == work_.message && ::shutdown(socket_.get(), SHUT_WR) != 0) fail("shutting down", errno);
        return;
    }
    for (auto messages = received_ / work_.message; messages > messages_before; --messages) finish_message(tally);
    if (work_.keep_sending ? watched_ == EPOLLIN : !paused_ && received_ == sent_) send_some();
}

void LoadClient::finish_message(Tally& tally) {
    const auto took = steady_clock::now() - begun_.front();
    begun_.pop_front();
    ++tally.operations;
    served_ = true;
    tally.latencies.push_back(static_cast<std::uint32_t>(std::chrono::nanoseconds(took).count()));
}

void LoadClient::watch(std::uint32_t events) {
    if (events == watched_) return;
    epoll_event event{.events = events, .data = {.u64 = number_}};
    if (::epoll_ctl(epoll_, watched_ == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket_.get(), &event) != 0)
        fail("epoll_ctl", errno);
    watched_ = events;
}

void LoadClient::fail(const char* what, int error) const {
    const auto& target = work_.targets[(number_ + connections_ - 1) % work_.targets.size()];
    throw std::runtime_error(fmt::format("client {}, connection {} to {}, after {} bytes: {}{}", number_, connections_,
                                         to_string(target), received_, what,
                                         error != 0 ? ": " + std::generic_category().message(error) : ""));
}

}  // namespace echo_server
