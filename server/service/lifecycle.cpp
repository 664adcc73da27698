// SPDX-License-Identifier: BSD-2-Clause
#include "service/lifecycle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/eventfd.h>

#include <csignal>
#include <exception>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "net/listener.h"
#include "net/socket_diag.h"

using asio::posix::stream_descriptor;

namespace echo_server {
namespace {

Fd make_eventfd() {
    Fd made(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made) fail("making an eventfd");
    return made;
}

}  // namespace

Lifecycle::Lifecycle(const Options& options, const User& user, Dispatcher& dispatcher, EchoServer& server,
                     Memory& memory)
    : options_(options),
      dispatcher_(dispatcher),
      server_(server),
      stop_memory_(memory.stop),
      stop_signals_(server.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      handover_(server.io(), make_eventfd().release()),
      reload_(server.io(), memory.reload, options, user, dispatcher, attachment_, server.listener()) {}

PortSet Lifecycle::plan_ports() {
    auto plan = reload_.first_plan(stop_signals_.native_handle());
    for (const auto& warning : plan.warnings) log_warning(warning);
    return std::move(plan.ports);
}

void Lifecycle::begin() {
    reload_.wait_for_hangup();
    wait_for_stop_signal();
    wait_for_handover();
}

void Lifecycle::wait_for_stop_signal() {
    stop_signals_.async_wait(stream_descriptor::wait_read, in_memory(stop_memory_, [this](std::error_code error) {
                                 if (error) return;
                                 consume_signal(stop_signals_.native_handle());
                                 wait_for_stop_signal();
                                 stop(EchoServer::Backlog::accept);
                             }));
}

void Lifecycle::wait_for_handover() {
    handover_.async_wait(stream_descriptor::wait_read, [this](std::error_code error) {
        if (error || stopping_) return;
        log_line("replaced: another process serves from now on");
        stop(EchoServer::Backlog::leave);
    });
}

std::function<bool()> Lifecycle::begun_handshakes() {
    try {
        PortSet ports = dispatcher_.ports();
        ports.insert(local_endpoint(server_.listener()).port());
        return [begun = BegunHandshakes(std::move(ports))]() mutable {
            try {
                return begun.any_left();
            } catch (const std::exception&) {
                return false;
            }
        };
    } catch (const std::exception&) {
        return {};  // there is no memory, or the kernel wants CAP_BPF for it
    }
}

void Lifecycle::stop(EchoServer::Backlog backlog) {
    if (stopping_) return server_.stop();
    stopping_ = true;
    reload_.stop();
    auto begun = begun_handshakes();  // before the ports close
    attachment_ = {};
    server_.drain(options_.drain_timeout, backlog, std::move(begun));
    const auto open = server_.open_connections();
    std::vector<std::string> waited_for;
    if (open > 0) waited_for.push_back(plural(open, "connection"));
    if (server_.is_accepting()) waited_for.emplace_back("clients that are not accepted yet");
    if (const auto seconds = options_.drain_timeout.count(); !waited_for.empty() && seconds > 0)
        log_line("{}; waiting up to {} s for {}",
                 backlog == EchoServer::Backlog::accept ? "stopping: the ports are closed" : "stopping", seconds,
                 fmt::join(waited_for, ", and for "));
    notify_stopping(fmt::format("Draining: {} open", plural(open, "connection")));
}

}  // namespace echo_server
