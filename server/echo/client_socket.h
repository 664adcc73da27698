// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
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

/// The connection to a client.
class ClientSocket {
 public:
    /// `client` is a non-blocking socket. It is closed with this object.
    explicit ClientSocket(Fd client) : socket_(std::move(client)) {}

    [[nodiscard]] Transfer receive(std::span<char> buffer) const;
    [[nodiscard]] Transfer send(std::span<const char> bytes) const;
    /// splice(2) from the socket into `pipe`, and from `pipe` into the socket. Neither waits.
    [[nodiscard]] Transfer splice_to(const Pipe& pipe, std::size_t max_size) const;
    [[nodiscard]] Transfer splice_from(const Pipe& pipe, std::size_t size) const;

    /// The port that the client dialled.
    [[nodiscard]] std::uint16_t local_port() const { return local_endpoint(socket_.get()).port(); }
    [[nodiscard]] int fd() const { return socket_.get(); }
    /// How many bytes the kernel has that the client's side has not acknowledged yet.
    [[nodiscard]] int unacknowledged() const;
    /// Sends a FIN behind all bytes.
    void shut_down() const;
    /// Whether the connection is over: both FINs were acknowledged, or it was reset. True for what is no TCP socket.
    [[nodiscard]] bool is_over() const;
    /// Lets close() end the connection by a FIN. Without this call it is a reset, as the listener's SO_LINGER says.
    void end_by_fin() const;
    /// Lets the kernel give up, after close(), a client that takes no byte for half a minute.
    void limit_time_after_end() const;
    void close() { socket_ = Fd(); }

 private:
    Fd socket_;
};

}  // namespace echo_server
