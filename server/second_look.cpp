// SPDX-License-Identifier: BSD-2-Clause
#include "second_look.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "echo_session.h"

bool SecondLook::pays() {
    constexpr unsigned probe = 64;  // every so many times it is tried all the same: the load may have changed
    return score_ >= 0 || ++passed_over_ % probe == 0;
}

void SecondLook::add(std::unique_ptr<EchoSession> session) {
    sessions_.push_back(std::move(session));
    post();
}

void SecondLook::count(bool found_input) {
    constexpr int memory = 16;
    score_ = std::clamp(score_ + (found_input ? 1 : -1), -memory, memory);
}

void SecondLook::post() {
    if (std::exchange(posted_, true)) return;
    asio::post(io_, InMemory(memory_, [this] { look(); }));
}

void SecondLook::look() {
    posted_ = false;
    try {
        // Those that are added meanwhile come next time: it is the turn of other events first.
        for (auto left = sessions_.size(); left > 0; --left) {
            auto session = std::move(sessions_.front());
            sessions_.pop_front();
            EchoSession::look_again(std::move(session));
        }
    } catch (...) {
        if (!sessions_.empty()) post();
        throw;
    }
}
