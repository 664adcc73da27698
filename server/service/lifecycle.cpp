// SPDX-License-Identifier: BSD-2-Clause
#include "service/lifecycle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/eventfd.h>

#include <csignal>
#include <string>
#include <system_error>
#include <vector>

#include "base/fd.h"
#include "base/log.h"
#include "base/os.h"
#include "base/signals.h"
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

Lifecycle::Lifecycle(std::chrono::seconds drain_timeout, EchoServer& server, Gate& gate, DescriptorStore& store,
                     Memory& memory)
    : drain_timeout_(drain_timeout),
      server_(server),
      gate_(gate),
      store_(store),
      memory_(memory),
      stop_signals_(server.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      replaced_(server.io(), make_eventfd().release()),
      watchdog_(server.io()) {}

void Lifecycle::begin() {
    wait_for_stop_signal();
    wait_for_replacement();
    if (const auto limit = watchdog_limit()) answer_watchdog(*limit / 4);
}

// Nothing if a thread hangs: systemd then starts the service again.
void Lifecycle::answer_watchdog(std::chrono::microseconds period) {
    if (server_.all_threads_have_turned()) notify("WATCHDOG=1");
    watchdog_.expires_after(period);
    watchdog_.async_wait(in_memory(memory_.watchdog, [this, period](std::error_code) { answer_watchdog(period); }));
}

void Lifecycle::wait_for_stop_signal() {
    stop_signals_.async_wait(stream_descriptor::wait_read, in_memory(memory_.stop, [this](std::error_code error) {
                                 if (error) return;
                                 const auto taken = take_signals(stop_signals_.native_handle());
                                 wait_for_stop_signal();
                                 for (const int number : {SIGINT, SIGTERM})
                                     if (::sigismember(&taken, number) == 1) stop(Reason::signal);
                             }));
}

void Lifecycle::wait_for_replacement() {
    replaced_.async_wait(stream_descriptor::wait_read, [this](std::error_code error) {
        if (error) return;
        log_line("replaced: another process serves from now on");
        if (!stopping_) return stop(Reason::replaced);
        // The next process of the service shall not share the socket with the new server.
        stopping_ = Reason::replaced;
        gate_.close(false);
        store_.clear();
    });
}

void Lifecycle::stop(Reason reason) {
    if (stopping_) return server_.stop();
    stopping_ = reason;
    // A restart looks like a stop from here. So new connections wait for the next process; if there is none, systemd
    // closes the ports once this process has ended.
    const bool stays_open = reason == Reason::signal && DescriptorStore::exists();
    if (!stays_open) store_.clear();
    gate_.close(stays_open);
    const bool leave_backlog = stays_open || reason == Reason::replaced;
    server_.drain(drain_timeout_, leave_backlog);
    const auto open = server_.open_connections();
    std::vector<std::string> waited_for;
    if (open > 0) waited_for.push_back(plural(open, "connection"));
    if (server_.is_accepting()) waited_for.emplace_back("clients that are not accepted yet");
    if (const auto seconds = drain_timeout_.count(); !waited_for.empty() && seconds > 0)
        log_line("{}; waiting up to {} s for {}",
                 stays_open                   ? "stopping: new connections wait for the next start"
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
