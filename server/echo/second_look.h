// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/io_context.hpp>
#include <cstddef>
#include <memory>
#include <vector>

#include "echo/handler_memory.h"

namespace echo_server {

class EchoSession;

/// Sessions that have just answered their clients. To wait for more input takes a recv(2) now, an event and another recv(2)
/// later; at the first time, an epoll_ctl(2) besides. To look again takes one recv(2), and finds more if the client was
/// faster than all the other sessions that had input. So a busy thread is better off looking, an idle one waiting: what
/// came of it lately decides.
class SecondLook {
 public:
    explicit SecondLook(asio::io_context& io) : io_(io) {}

    /// Whether to look again is worth more than it costs.
    [[nodiscard]] bool pays();

    /// Lets `session` look again, once the input of all others has been dealt with.
    void add(std::unique_ptr<EchoSession> session);

    /// Tells what came of it.
    void count(bool found_input);

    /// Ends the sessions that are still to look.
    void clear();

 private:
    void post();
    void look();

    asio::io_context& io_;
    HandlerMemory memory_;
    // Those of this turn, from next_ on, and those that have come since it began. (Not a deque: it would allocate.)
    std::vector<std::unique_ptr<EchoSession>> sessions_;
    std::vector<std::unique_ptr<EchoSession>> later_;
    std::size_t next_ = 0;
    bool posted_ = false;
    static constexpr int certain = 1 << 16;
    int success_ = certain;  // how often it lately found input, of `certain`
    unsigned passed_over_ = 0;
};

}  // namespace echo_server
