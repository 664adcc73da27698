// SPDX-License-Identifier: BSD-2-Clause
#include "echo/client_socket.h"

#include <fcntl.h>
#include <sys/socket.h>

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

Transfer ClientSocket::receive(std::span<char> buffer) const {
    return transfer(::recv(descriptor_, buffer.data(), buffer.size(), 0));
}

Transfer ClientSocket::send(std::span<const char> bytes) const {
    return transfer(::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

Transfer ClientSocket::splice_to(const Pipe& pipe, std::size_t max_size) const {
    return splice(descriptor_, pipe.in(), max_size);
}

Transfer ClientSocket::splice_from(const Pipe& pipe, std::size_t size) const {
    return splice(pipe.out(), descriptor_, size);
}

std::error_code ClientSocket::enter_reactor() {
    if (!plain_) return {};
    std::error_code error;
    // Asio wants a family, and makes no use of it.
    waiting_.assign(asio::ip::tcp::v6(), descriptor_, error);
    if (error) return error;
    [[maybe_unused]] const int owned_by_asio = plain_.release();
    return {};
}

void ClientSocket::close() {
    std::error_code ignored;
    waiting_.close(ignored);
    plain_ = Fd();
    descriptor_ = -1;
}

}  // namespace echo_server
