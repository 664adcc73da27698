// SPDX-License-Identifier: BSD-2-Clause
#include "echo/client_socket.h"

#include <fcntl.h>
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

}  // namespace echo_server
