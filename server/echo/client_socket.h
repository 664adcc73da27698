// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>
#include <utility>

#include "base/fd.h"
#include "echo/pipe.h"
#include "net/listener.h"

namespace echo_server {

/// What a system call that moves bytes came to.
struct Transfer {
    enum class Result {
        moved,    ///< `size` bytes, at least one
        not_yet,  ///< the socket is empty, or full
        end,      ///< the client has sent its FIN
        failed,   ///< the client is gone, or the call is refused
    };

    Result result = Result::failed;
    std::size_t size = 0;
};

/// The connection to a client: a plain descriptor until it first has to wait, and Asio's from then on. Many short
/// connections never wait, and so need no epoll_ctl(2).
class ClientSocket {
 public:
    /// `client` is a non-blocking socket. It is closed with this object, which `io` outlives.
    ClientSocket(Fd client, asio::io_context& io)
        : descriptor_(client.get()), plain_(std::move(client)), waiting_(io) {}

    [[nodiscard]] Transfer receive(std::span<char> buffer) const;
    [[nodiscard]] Transfer send(std::span<const char> bytes) const;
    /// splice(2) from the socket into `pipe`, and from `pipe` into the socket. Neither waits.
    [[nodiscard]] Transfer splice_to(const Pipe& pipe, std::size_t max_size) const;
    [[nodiscard]] Transfer splice_from(const Pipe& pipe, std::size_t size) const;

    /// The port that the client dialled.
    [[nodiscard]] std::uint16_t local_port() const { return local_endpoint(descriptor_).port(); }

    /// To be called before a wait: gives the socket to Asio, if that was not done before. Returns the error of
    /// epoll(7).
    std::error_code enter_reactor();
    /// Calls `handler` with a std::error_code once there is input, or an end. May write one byte to `scratch`
    /// meanwhile.
    template <typename Handler>
    void when_readable(std::span<char> scratch, Handler handler) {
        // Not async_wait, which costs an epoll_ctl(2) each time.
        waiting_.async_receive(
            asio::buffer(scratch.data(), 1), asio::ip::tcp::socket::message_peek,
            [handler = std::move(handler)](std::error_code error, std::size_t) mutable { handler(error); });
    }
    /// Calls `handler` with a std::error_code once the socket has room.
    template <typename Handler>
    void when_writable(Handler handler) {
        waiting_.async_wait(asio::ip::tcp::socket::wait_write, std::move(handler));
    }

    /// Ends a wait with an error.
    void close();

 private:
    int descriptor_;
    Fd plain_;                       // owns it until the first wait
    asio::ip::tcp::socket waiting_;  // owns it from then on
};

}  // namespace echo_server
