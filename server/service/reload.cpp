// SPDX-License-Identifier: BSD-2-Clause
#include "service/reload.h"

#include <fmt/format.h>
#include <poll.h>

#include <array>
#include <csignal>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "net/listener.h"

namespace echo_server {
namespace {

constexpr std::string_view no_reload_in_a_stop = "SIGHUP: the server is stopping; nothing is reloaded";

}  // namespace

Reload::Reload(asio::io_context& io, HandlerMemory& memory, const Options& options, User user, Dispatcher& dispatcher,
               const Attachment& attachment, int listener)
    : options_(options),
      user_(std::move(user)),
      dispatcher_(dispatcher),
      attachment_(attachment),
      listener_(listener),
      listener_cookie_(socket_cookie(listener)),
      hangups_(io, memory, SIGHUP, planning_.done()) {}

PortPlan Reload::first_plan(int stop_signals) {
    // Copies, because the thread may outlive this object.
    planning_.start([options = options_, user = user_, cookie = listener_cookie_] {
        return plan_first_ports(options, user, cookie);
    });
    std::array<pollfd, 2> ready{pollfd{.fd = planning_.done(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = stop_signals, .events = POLLIN, .revents = 0}};
    while (::poll(ready.data(), ready.size(), -1) <= 0) continue;
    if (ready[1].revents != 0) check_stop_signals();
    return planning_.result();
}

void Reload::wait_for_hangup() {
    hangups_.start({.begin =
                        [this] {
                            if (!stopping_) check_steering();
                            return with_memory([this] { return start(); });
                        },
                    .finish =
                        [this] {
                            return with_memory([this] {
                                finish();
                                return false;
                            });
                        }});
}

template <typename Step>
bool Reload::with_memory(Step step) noexcept {
    try {
        return step();
    } catch (const std::bad_alloc&) {
        log_error("SIGHUP: out of memory; not all ports may be as the file has them: send SIGHUP again");
        notify_ready_again();
        return false;
    }
}

void Reload::check_steering() const {
    // accept(2) would tell that the listener was destroyed, but the server may accept nobody just now, and the map
    // may keep the socket.
    auto why = is_listening(listener_) ? dispatcher_.why_not_steering(attachment_, listener_cookie_)
                                       : "the listening socket was destroyed from outside (for example by 'ss -K')";
    if (!why.empty())
        throw std::runtime_error(
            fmt::format("SIGHUP: {}: the ports are closed. The server ends, so that it can be started anew", why));
}

bool Reload::start() {
    if (stopping_) {
        log_warning(no_reload_in_a_stop);
        return false;
    }
    notify_reloading();
    std::string failure;
    try {
        if (options_.ports_file) {
            planning_.start([options = options_, user = user_, open = dispatcher_.ports(), cookie = listener_cookie_] {
                return plan_ports(options, user, open, cookie);
            });
            return true;
        }
        log_warning("SIGHUP: there is nothing to re-read without --ports-file; the ports stay as they are");
    } catch (const std::runtime_error& error) {
        failure = error.what();
        log_error("{}; the ports stay as they are", failure);
    }
    notify_ready(status_line(failure));
    return false;
}

void Reload::finish() {
    const auto failure = apply();
    if (!stopping_) notify_ready(status_line(failure));
}

std::string Reload::apply() {
    PortPlan plan;
    try {
        plan = planning_.result();
    } catch (const std::runtime_error& error) {
        log_error("{}; {}", error.what(), stopping_ ? "the server is stopping" : "the ports stay as they are");
        return error.what();
    }
    if (stopping_) {
        log_warning(no_reload_in_a_stop);
        return {};
    }
    for (const auto& warning : plan.warnings) log_warning(warning);
    const auto& file = *options_.ports_file;
    try {
        const auto [added, removed] = dispatcher_.set_ports(plan.ports);
        if (added.empty() && removed.empty())
            log_line("reloaded {}: nothing changed; {} open", file, plural(plan.ports.size(), "port"));
        else
            log_line("reloaded {}: added {}; removed {}; {} open", file, added.to_string(ranges_in_a_line),
                     removed.to_string(ranges_in_a_line), plural(plan.ports.size(), "port"));
    } catch (const std::runtime_error& error) {
        log_error("{}; not all ports are as {} has them until a reload succeeds", error.what(), file);
        return error.what();
    }
    return {};
}

std::string Reload::status_line(const std::string& failure) const {
    try {
        return describe_status(dispatcher_.ports(), failure);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

}  // namespace echo_server
