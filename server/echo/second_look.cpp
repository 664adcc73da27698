// SPDX-License-Identifier: BSD-2-Clause
#include "echo/second_look.h"

#include <algorithm>
#include <asio/post.hpp>
#include <utility>

#include "echo/session.h"

namespace echo_server {

bool SecondLook::pays() {
    constexpr int enough = certain / 4;
    constexpr unsigned probe = 16;  // every so many times it is tried all the same: the load may have changed
    return success_ >= enough || ++passed_over_ % probe == 0;
}

void SecondLook::add(std::unique_ptr<EchoSession> session) {
    later_.push_back(std::move(session));
    post();
}

void SecondLook::count(bool found_input) {
    constexpr int window = 64;  // the last so many count
    success_ += ((found_input ? certain : 0) - success_) / window;
}

void SecondLook::post() {
    if (std::exchange(posted_, true)) return;
    asio::post(io_, InMemory(memory_, [this] { look(); }));
}

void SecondLook::look() {
    constexpr std::size_t most = 128;  // then it is the turn of other events, of which Asio takes as many at a time
    posted_ = false;
    if (next_ == sessions_.size()) {
        sessions_.clear();
        next_ = 0;
        std::swap(sessions_, later_);
    }
    const auto end = std::min(next_ + most, sessions_.size());
    try {
        while (next_ < end) {
            auto session = std::move(sessions_[next_++]);
            if (next_ < end) __builtin_prefetch(sessions_[next_].get());  // of thousands it is in no cache
            EchoSession::look_again(std::move(session));
        }
    } catch (...) {
        post();
        throw;
    }
    if (next_ < sessions_.size() || !later_.empty()) post();
}

void SecondLook::clear() {
    sessions_.clear();
    later_.clear();
}

}  // namespace echo_server
