// SPDX-License-Identifier: BSD-2-Clause
#include "support/peer.h"

#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "support/process.h"

namespace echo_server {

namespace {

Fd listen_at(const Netns& netns, std::uint16_t port, int window, int backlog) {
    const Netns::Entered entered(netns);
    Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(listener);
    // The accepted sockets inherit these.
    const timeval limit{.tv_sec = time_limit.count(), .tv_usec = 0};
    REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0);
    REQUIRE(::setsockopt(listener.get(), SOL_SOCKET, SO_RCVBUF, &window, sizeof(window)) == 0);
    const sockaddr_in here{
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&here), sizeof(here)) == 0);
    REQUIRE(::listen(listener.get(), backlog) == 0);
    return listener;
}

}  // namespace

Peer::Peer(const Netns& netns, std::uint16_t port, Serve serve, int window)
    : Peer(listen_at(netns, port, window, SOMAXCONN), std::move(serve)) {}

Peer::Peer(Fd listener, Serve serve)
    : serve_(std::move(serve)), listener_(std::move(listener)), accepts_([this] { accept_one(); }) {}

void Peer::accept_one() {
    pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 20) <= 0) return;
    Fd accepted(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!accepted) return;
    connections_.emplace_back([this, client = std::move(accepted)]() mutable { serve_(client); });
}

// A backlog of 0 has room for one connection.
FullListener::FullListener(const Netns& netns, std::uint16_t port)
    : listener_(listen_at(netns, port, 65536, 0)), waiting_(netns, "127.0.0.1", port) {
    REQUIRE(waiting_.error() == 0);
}

std::string receive_from(const Fd& client, std::size_t size) {
    std::string bytes(size, '\0');
    const auto count = ::recv(client.get(), bytes.data(), size, MSG_WAITALL);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return bytes;
}

bool tell(const Fd& client, std::string_view bytes) {
    // The socket blocks, so send(2) takes all bytes, or fails.
    return ::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

void echo_back(const Fd& client, std::size_t piece, std::size_t limit) {
    std::string bytes(piece, '\0');
    while (limit > 0) {
        const auto count = ::recv(client.get(), bytes.data(), std::min(piece, limit), 0);
        if (count <= 0 || !tell(client, {bytes.data(), static_cast<std::size_t>(count)})) return;
        limit -= static_cast<std::size_t>(count);
    }
}

void wait_for_end(const Fd& client) {
    while (!receive_from(client, 4096).empty()) continue;
}

void end_by_reset(Fd& client) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    client = Fd();
}

}  // namespace echo_server
