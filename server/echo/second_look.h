// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "echo/handler_memory.h"

namespace echo_server {

/// Decides how a session goes on that has just answered. Waiting costs a failed recv(2), an epoll event and a second
/// recv(2); at the first time, an epoll_ctl(2) as well. Looking again, after all other sessions that had input, costs
/// one recv(2), and finds more if the client was faster than they were. So sessions look again while looking mostly
/// succeeds: a busy thread looks, an idle one waits.
template <typename Session>
class SecondLook {
 public:
    using Owner = std::unique_ptr<Session>;

    /// Calls `look` in the thread of `io` with each session that is to look again.
    SecondLook(asio::io_context& io, void (*look)(Owner)) : io_(io), look_(look) {}

    /// Whether looking again is worth more than it costs.
    [[nodiscard]] bool worthwhile() {
        constexpr int enough = always / 4;
        constexpr unsigned probe = 16;  // look anyway once in so many times: the load may have changed
        return hit_rate_ >= enough || ++passed_over_ % probe == 0;
    }

    /// Lets `session` look again once all others have had their turn.
    void add(Owner session) {
        next_turn_.push_back(std::move(session));
        post();
    }

    /// Records whether a look found input.
    void record(bool hit) {
        constexpr int window = 64;  // the last so many looks count
        hit_rate_ += ((hit ? always : 0) - hit_rate_) / window;
    }

    /// Ends the sessions that are still to look.
    void clear() {
        this_turn_.clear();
        next_turn_.clear();
    }

 private:
    void post() {
        if (std::exchange(posted_, true)) return;
        asio::post(io_, in_memory(memory_, [this] { run(); }));
    }

    void run() {
        constexpr std::size_t max_looks = 128;  // then other events have their turn: Asio handles as many at a time
        posted_ = false;
        if (next_ == this_turn_.size()) {
            this_turn_.clear();
            next_ = 0;
            std::swap(this_turn_, next_turn_);
        }
        const auto end = std::min(next_ + max_looks, this_turn_.size());
        try {
            while (next_ < end) look_(std::move(this_turn_[next_++]));
        } catch (...) {
            post();
            throw;
        }
        if (next_ < this_turn_.size() || !next_turn_.empty()) post();
    }

    asio::io_context& io_;
    void (*look_)(Owner);
    HandlerMemory memory_;
    std::vector<Owner> this_turn_;  // from next_ on; not a deque, which would allocate
    std::vector<Owner> next_turn_;
    std::size_t next_ = 0;
    bool posted_ = false;
    static constexpr int always = 1 << 16;  // fixed point: 100 %
    int hit_rate_ = always;
    unsigned passed_over_ = 0;
};

}  // namespace echo_server
