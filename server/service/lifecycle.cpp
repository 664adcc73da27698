// SPDX-License-Identifier: BSD-2-Clause
#include "service/lifecycle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/eventfd.h>

#include <csignal>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "base/os.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"

using asio::posix::stream_descriptor;

namespace echo_server {
namespace {

Fd make_eventfd() {
    Fd made(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made) fail("making an eventfd");
    return made;
}

}  // namespace

Lifecycle::Lifecycle(const Options& options, Dispatcher& dispatcher, EchoServer& server, DescriptorStore& store,
                     Memory& memory)
    : options_(options),
      dispatcher_(dispatcher),
      server_(server),
      store_(store),
      stop_memory_(memory.stop),
      watchdog_memory_(memory.watchdog),
      stop_signals_(server.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      replaced_(server.io(), make_eventfd().release()),
      watchdog_(server.io()),
      reload_(server.io(), memory.reload, options, dispatcher, link_, server.listener()),
      status_(server.io(), memory.status, memory.anew) {}

PortSet Lifecycle::plan_ports() {
    auto plan = reload_.first_plan(stop_signals_.native_handle());
    for (const auto& warning : plan.warnings) log_warning(warning);
    return std::move(plan.ports);
}

int Lifecycle::own(Link link) {
    link_ = std::move(link);
    return bpf_link__fd(link_.get());
}

void Lifecycle::begin(Instance self) {
    reload_.wait_for_hangup();
    status_.start(std::move(self), {.is_attached = [this] { return is_attached(); },
                                    .reset_port_stats = [this] { dispatcher_.reset_port_stats(); }});
    wait_for_stop_signal();
    wait_for_replacement();
    if (const auto limit = watchdog_limit()) answer_watchdog(*limit / 4);
}

// Nothing if a thread hangs: systemd then starts the service anew.
void Lifecycle::answer_watchdog(std::chrono::microseconds period) {
    if (server_.all_threads_have_turned()) notify("WATCHDOG=1");
    watchdog_.expires_after(period);
    watchdog_.async_wait(in_memory(watchdog_memory_, [this, period](std::error_code) { answer_watchdog(period); }));
}

void Lifecycle::wait_for_stop_signal() {
    stop_signals_.async_wait(stream_descriptor::wait_read, in_memory(stop_memory_, [this](std::error_code error) {
                                 if (error) return;
                                 consume_signal(stop_signals_.native_handle());
                                 wait_for_stop_signal();
                                 stop(Reason::signal);
                             }));
}

void Lifecycle::wait_for_replacement() {
    replaced_.async_wait(stream_descriptor::wait_read, [this](std::error_code error) {
        if (error) return;
        log_line("replaced: another process serves from now on");
        if (stopping_) return replaced_in_drain();
        stop(Reason::replaced);
    });
}

// The next process of the service shall not share the socket with the new server.
void Lifecycle::replaced_in_drain() {
    stopping_ = Reason::replaced;
    stays_open_ = false;
    store_.clear();
}

std::optional<bool> Lifecycle::is_attached() const {
    if (!dispatcher_.may_use_maps()) throw std::runtime_error(why_maps_are_refused);
    return stays_open_ ? true : Dispatcher::is_attached(link_);
}

void Lifecycle::stop(Reason reason) {
    if (stopping_) return server_.stop();
    stopping_ = reason;
    reload_.stop();
    // A restart looks like a stop from here. So newcomers wait for the next process; if there is none, systemd closes
    // the ports once this process has ended.
    stays_open_ = reason == Reason::signal && DescriptorStore::exists();
    if (!stays_open_) store_.clear();
    const bool leave_backlog = stays_open_ || reason == Reason::replaced;
    link_ = {};
    server_.drain(options_.drain_timeout, leave_backlog ? EchoServer::Backlog::leave : EchoServer::Backlog::accept);
    const auto open = server_.open_connections();
    std::vector<std::string> waited_for;
    if (open > 0) waited_for.push_back(plural(open, "connection"));
    if (server_.is_accepting()) waited_for.emplace_back("clients that are not accepted yet");
    if (const auto seconds = options_.drain_timeout.count(); !waited_for.empty() && seconds > 0)
        log_line("{}; waiting up to {} s for {}",
                 stays_open_                  ? "stopping: newcomers wait for the next start"
                 : reason == Reason::replaced ? "stopping"
                                              : "stopping: the ports are closed",
                 seconds, fmt::join(waited_for, ", and for "));
    notify("STOPPING=1",
           fmt::format("{}: {} open", reason == Reason::replaced ? "Replaced by another process, draining" : "Draining",
                       plural(open, "connection")));
}

void Lifecycle::end() {
    const auto open = server_.open_connections();
    const auto cut_off = open == 0 ? "" : fmt::format("; {} cut off", plural(open, "connection"));
    log_line("stopped{}", cut_off);
    notify("", fmt::format("{}{}", stopping_ == Reason::replaced ? "Replaced by another process" : "Stopped", cut_off));
}

}  // namespace echo_server
