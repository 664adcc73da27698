// SPDX-License-Identifier: BSD-2-Clause
#include "echo/client_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace echo_server {
namespace {

Transfer transfer(ssize_t moved) {
    if (moved > 0) return {Transfer::Result::moved, static_cast<std::size_t>(moved)};
    if (moved == 0) return {Transfer::Result::end};
    return {errno == EAGAIN ? Transfer::Result::not_yet : Transfer::Result::failed};
}

Transfer splice(int from, int to, std::size_t size) {
    const auto moved = ::splice(from, nullptr, to, nullptr, size, SPLICE_F_NONBLOCK);
    // Unlike send(2), it fails with EINTR before it starts if a signal is pending.
    if (moved < 0 && errno == EINTR) return {Transfer::Result::not_yet};
    return transfer(moved);
}

}  // namespace

// By syscall(2): the functions of glibc let the thread be cancelled meanwhile, by two atomic operations each time.
Transfer ClientSocket::receive(std::span<char> buffer) const {
    return transfer(::syscall(SYS_recvfrom, socket_.get(), buffer.data(), buffer.size(), 0, nullptr, nullptr));
}

Transfer ClientSocket::send(std::span<const char> bytes) const {
    return transfer(::syscall(SYS_sendto, socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0));
}

Transfer ClientSocket::splice_to(const Pipe& pipe, std::size_t max_size) const {
    return splice(socket_.get(), pipe.in(), max_size);
}

Transfer ClientSocket::splice_from(const Pipe& pipe, std::size_t size) const {
    return splice(pipe.out(), socket_.get(), size);
}

int ClientSocket::unacknowledged() const {
    int bytes = 0;
    ::ioctl(socket_.get(), SIOCOUTQ, &bytes);
    return bytes;
}

void ClientSocket::shut_down() const { ::shutdown(socket_.get(), SHUT_WR); }

bool ClientSocket::is_over() const {
    tcp_info info{};
    socklen_t size = sizeof(info);
    const bool known = ::getsockopt(socket_.get(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
    return !known || info.tcpi_state == TCP_CLOSE;
}

void ClientSocket::end_by_fin() const {
    const linger none{};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
}

void ClientSocket::limit_time_after_end() const {
    constexpr int user_timeout = 30'000;  // ms
    ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
}

}  // namespace echo_server
