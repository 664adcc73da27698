// SPDX-License-Identifier: BSD-2-Clause
#include "service/status_on_signal.h"

#include <csignal>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

#include "base/log.h"
#include "status/format.h"
#include "status/status.h"

namespace echo_server {

StatusOnSignal::StatusOnSignal(asio::io_context& io, HandlerMemory& memory)
    : signals_(io, memory, SIGUSR1, reading_.done()) {}

void StatusOnSignal::start(RunningServer server, std::function<std::optional<bool>()> is_attached) {
    server_ = std::make_shared<RunningServer>(std::move(server));
    is_attached_ = std::move(is_attached);
    signals_.start({.begin = [this] { return begin(); }, .finish = [this] { return finish(); }});
}

template <typename Step>
bool StatusOnSignal::attempt(Step step) noexcept {
    try {
        try {
            step();
            return true;
        } catch (const std::runtime_error& error) {
            log_error("SIGUSR1: {}; the status is not logged", error.what());
        }
    } catch (const std::bad_alloc&) {
        log_error("SIGUSR1: out of memory; the status is not logged");
    }
    return false;
}

bool StatusOnSignal::begin() noexcept {
    return attempt([this] {
        attached_ = is_attached_();
        reading_.start([server = server_, attached = attached_] {
            server->state = state_of(*server, attached);
            return to_text(read_statuses(std::span(server.get(), 1)));
        });
    });
}

bool StatusOnSignal::finish() noexcept {
    bool again = false;
    attempt([&] {
        const auto text = reading_.result();
        again = is_attached_() != attached_;  // a drain has begun meanwhile: the text may have a part of each state
        if (!again) log_text(text);
    });
    return again && begin();
}

}  // namespace echo_server
