// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "base/os.h"

namespace echo_server {

/// The work of every connection of a load.
struct Work {
    std::size_t message = 64;       ///< bytes; an operation is one message and its echo, or one whole connection
    bool keep_sending = false;      ///< two messages are under way all the time; otherwise one at a time
    bool one_message_each = false;  ///< then shut down, see the server end it too, and connect again
    std::vector<asio::ip::tcp::endpoint> targets;  ///< taken in turn
};

/// The result of a load.
struct Tally {
    std::uint64_t operations = 0;
    std::uint64_t bytes = 0;               ///< that came back
    std::vector<std::uint32_t> latencies;  ///< of each operation, ns
};

/// One client: sends a pattern in which every place of every client's stream differs from all others near it, and
/// checks each byte of the echo. Throws std::runtime_error when anything but the echo happens.
class LoadClient {
 public:
    LoadClient(const Work& work, std::size_t number, int epoll);

    /// Connects, and sends the first bytes; call it once. If the work is messages, it sends only the first message.
    void start();
    /// The client may send its other messages now.
    void go_on();
    /// Goes on after an event of the epoll set; adds finished operations to `tally`.
    void handle(std::uint32_t events, Tally& tally);
    /// True after the first complete operation.
    [[nodiscard]] bool served() const { return served_; }

 private:
    void connect();
    [[nodiscard]] std::size_t due() const;
    void send_some();
    void receive_some(Tally& tally);
    void finish_message(Tally& tally);
    void watch(std::uint32_t events);
    [[noreturn]] void fail(const char* what, int error) const;

    const Work& work_;
    std::size_t number_;
    int epoll_;
    Fd socket_;
    std::size_t connections_ = 0;
    std::uint64_t sent_ = 0;  // on this connection
    std::uint64_t received_ = 0;
    std::uint32_t watched_ = 0;
    bool served_ = false;
    bool paused_ = true;
    std::deque<std::chrono::steady_clock::time_point> begun_;  // of each message under way
};

}  // namespace echo_server
