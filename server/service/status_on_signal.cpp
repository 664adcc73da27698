// SPDX-License-Identifier: BSD-2-Clause
#include "service/status_on_signal.h"

#include <csignal>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

#include "base/log.h"
#include "base/signals.h"
#include "status/status.h"

namespace echo_server {

StatusOnSignal::StatusOnSignal(asio::io_context& io, HandlerMemory& of_status, HandlerMemory& of_reset)
    : status_signals_(io, of_status, SIGUSR1, reading_.done()), reset_signals_(io, of_reset, SIGUSR2) {}

void StatusOnSignal::start(Instance server, Calls calls) {
    server_ = std::make_shared<Instance>(std::move(server));
    calls_ = std::move(calls);
    status_signals_.start({.begin = [this] { return begin(); }, .finish = [this] { return finish(); }});
    const auto reset_port_stats = [this] {
        reset_due_ = true;
        if (!reads_ && !is_pending(SIGUSR1)) reset_port_stats_if_due();
        return false;
    };
    reset_signals_.start({.begin = reset_port_stats, .finish = {}});
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
    reads_ = attempt([this] {
        attached_ = calls_.is_attached();
        reading_.start([server = server_, attached = attached_] {
            server->state = state_of(*server, attached);
            return to_text(read_statuses(std::span(server.get(), 1)));
        });
    });
    if (!reads_) reset_port_stats_if_due();
    return reads_;
}

bool StatusOnSignal::finish() noexcept {
    bool again = false;
    attempt([&] {
        const auto text = reading_.result();
        again = calls_.is_attached() != attached_;  // a drain has begun meanwhile: the text may be a mixture
        if (!again) log_text(text);
    });
    if (again) return begin();
    reads_ = false;
    reset_port_stats_if_due();
    return false;
}

void StatusOnSignal::reset_port_stats_if_due() noexcept {
    if (!std::exchange(reset_due_, false)) return;
    calls_.reset_port_stats();
    log_line("SIGUSR2: no port counts as reached any more");
}

}  // namespace echo_server
