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
constexpr std::string_view out_of_memory =
    "SIGHUP: out of memory; not all ports may be as the file has them: send SIGHUP again";

}  // namespace

Reload::Reload(asio::io_context& io, Memory& memory, const Options& options, Dispatcher& dispatcher, const Link& link,
               int listener)
    : options_(options),
      dispatcher_(dispatcher),
      link_(link),
      listener_(listener),
      listener_cookie_(socket_cookie(listener)),
      hangups_(io, memory.hangups, SIGHUP, planning_.done()),
      commands_(io, memory.commands) {}

PortPlan Reload::first_plan(int stop_signals) {
    // Copies, because the thread may outlive this object.
    planning_.start([options = options_, cookie = listener_cookie_] { return plan_ports(options, {}, cookie); });
    std::array<pollfd, 2> ready{pollfd{.fd = planning_.done(), .events = POLLIN, .revents = 0},
                                pollfd{.fd = stop_signals, .events = POLLIN, .revents = 0}};
    while (::poll(ready.data(), ready.size(), -1) <= 0) continue;
    if (ready[1].revents != 0) check_stop_signals();
    return planning_.result();
}

void Reload::wait_for_hangup() {
    commands_.listen();
    hangups_.start({.begin =
                        [this] {
                            commands_.begin_reload();
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
        log_error(out_of_memory);
        notify("READY=1");
        commands_.answer(false, out_of_memory);
        return false;
    }
}

void Reload::check_steering() {
    // accept(2) would tell that the listener was destroyed, but the server may accept nobody just now, and the map
    // may keep the socket.
    auto why = is_listening(listener_) ? dispatcher_.why_not_steering(link_, listener_cookie_)
                                       : "the listening socket was destroyed from outside (for example by 'ss -K')";
    if (why.empty()) return;
    why = fmt::format("SIGHUP: {}: the ports are closed. The server ends, so that it can be started anew", why);
    commands_.answer(false, why);
    throw std::runtime_error(why);
}

bool Reload::start() {
    if (stopping_) {
        log_warning(no_reload_in_a_stop);
        return false;
    }
    notify_reloading();
    try {
        if (!options_.ports_file) throw std::runtime_error("SIGHUP: there is nothing to re-read without --ports-file");
        planning_.start([options = options_, open = dispatcher_.ports(), cookie = listener_cookie_] {
            return plan_ports(options, open, cookie);
        });
        return true;
    } catch (const std::runtime_error& error) {
        report(fmt::format("{}; the ports stay as they are", error.what()), error.what());
    }
    return false;
}

void Reload::finish() {
    PortPlan plan;
    try {
        plan = planning_.result();
    } catch (const std::runtime_error& error) {
        if (stopping_) return log_error("{}; the server is stopping", error.what());
        return report(fmt::format("{}; the ports stay as they are", error.what()), error.what());
    }
    if (stopping_) return log_warning(no_reload_in_a_stop);
    try {
        report(apply(plan));
    } catch (const std::runtime_error& error) {
        report(fmt::format("{}; not all ports are as {} has them until a reload succeeds", error.what(),
                           *options_.ports_file),
               error.what());
    }
}

std::string Reload::apply(const PortPlan& plan) {
    for (const auto& warning : plan.warnings) log_warning(warning);
    const auto [added, removed] = dispatcher_.set_ports(plan.ports);
    const auto what = added.empty() && removed.empty()
                          ? "nothing changed"
                          : fmt::format("added {}; removed {}", added.to_string(ranges_in_a_line),
                                        removed.to_string(ranges_in_a_line));
    return fmt::format("reloaded {}: {}; {} open", *options_.ports_file, what, plural(plan.ports.size(), "port"));
}

void Reload::report(const std::string& line, const std::string& failure) {
    failure.empty() ? log_line(line) : log_error(line);
    // First systemd: when the command ends, 'systemctl reload' shall find the service ready.
    notify("READY=1", status_line(failure));
    commands_.answer(failure.empty(), line);
}

void Reload::stop() {
    stopping_ = true;
    commands_.close(no_reload_in_a_stop);
}

std::string Reload::status_line(const std::string& failure) const {
    try {
        return describe_status(dispatcher_.ports(), failure);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

}  // namespace echo_server
