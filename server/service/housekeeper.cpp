// SPDX-License-Identifier: BSD-2-Clause
#include "service/housekeeper.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/os.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "net/sockets.h"
#include "service/ports.h"
#include "service/reload_command.h"
#include "status/status.h"

namespace echo_server {
namespace {

constexpr auto no_reload_in_a_stop = "reload: the server is stopping; nothing is reloaded";

// What the thread does. It owns all that it uses, because it may outlive the Housekeeper.
class Housework {
 public:
    Housework(Housekeeper::Facts facts, Fd end) : facts_(std::move(facts)), end_(std::move(end)) {}

    void run() {
        for (;;) {
            std::array ready{pollfd{.fd = end_.get(), .events = POLLIN, .revents = 0},
                             pollfd{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                             pollfd{.fd = commands(), .events = POLLIN, .revents = 0}};
            if (::poll(ready.data(), ready.size(), -1) < 0) continue;
            if (ready[0].revents != 0) return;
            // In turns, so that neither a storm of signals nor a flood of commands keeps the other waiting.
            if (ready[1].revents != 0) answer_signals();
            if (ready[2].revents != 0) answer_command();
        }
    }

 private:
    void answer_signals() {
        const auto signals = take_signals(signals_.get());
        if (::sigismember(&signals, SIGHUP) == 1) reload({});
        if (::sigismember(&signals, SIGUSR1) == 1) log_status();
        if (::sigismember(&signals, SIGUSR2) != 1) return;
        facts_.dispatcher->reset_port_stats();
        log_line("SIGUSR2: the figures by port are reset");
    }

    // -1, which poll(2) passes over, once the gate is closed.
    int commands() {
        const std::lock_guard lock(facts_.gate->mutex);
        return facts_.gate->commands.get();
    }

    void answer_command() {
        Fd command;
        while_open([&] { command = accept_reload(facts_.gate->commands.get(), facts_.user); });
        if (command) return reload(command);
        if (errno == EMFILE || errno == ENFILE) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }

    // `command` is empty for SIGHUP.
    void reload(const Fd& command) {
        try {
            const auto why = why_not_steering();
            if (why.empty()) return make_ports_as_listed(command);
            answer_reload(command, false, why);
            while_open([&] { asio::post(facts_.io, [why] { throw std::runtime_error(why); }); });
        } catch (const std::bad_alloc&) {
            constexpr std::string_view no_memory =
                "reload: out of memory; not all ports may be as the file has them: reload again";
            log_error(no_memory);
            while_open([] { notify("READY=1"); });
            answer_reload(command, false, no_memory);
        }
    }

    void make_ports_as_listed(const Fd& command) {
        std::string line;
        std::string failure;
        std::string result = "the ports stay as they are";
        try {
            line = change_ports(result);
        } catch (const std::runtime_error& error) {
            failure = error.what();
            line = is_open() ? fmt::format("{}; {}", failure, result) : no_reload_in_a_stop;
        }
        failure.empty() ? log_line(line) : log_error(line);
        // First systemd: when the command ends, 'systemctl reload' shall find the service ready.
        const auto status = status_line(failure);
        while_open([&] { notify("READY=1", status); });
        answer_reload(command, failure.empty(), line);
    }

    // Returns the line about what has changed. If it throws std::runtime_error, `result` says how the ports are.
    std::string change_ports(std::string& result) {
        const auto& options = facts_.options;
        if (!while_open(notify_reloading)) throw std::runtime_error(no_reload_in_a_stop);
        if (!options.ports_file) throw std::runtime_error("reload: there is nothing to re-read without --ports-file");
        const PortSet ports = plan_ports(options, facts_.dispatcher->ports(), listener_cookie_);
        if (!is_open()) throw std::runtime_error(no_reload_in_a_stop);
        result = fmt::format("not all ports are as {} has them until a reload succeeds", *options.ports_file);
        const auto [added, removed] = facts_.dispatcher->set_ports(ports);
        const auto what = added.empty() && removed.empty()
                              ? "nothing changed"
                              : fmt::format("added {}; removed {}", added.to_string(ranges_in_a_line),
                                            removed.to_string(ranges_in_a_line));
        return fmt::format("reloaded {}: {}; {} open", *options.ports_file, what, plural(ports.size(), "port"));
    }

    [[nodiscard]] std::string status_line(const std::string& failure) const {
        try {
            return describe_open(facts_.dispatcher->ports(), failure);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    }

    void log_status() {
        try {
            try {
                log_text(read_status());
            } catch (const std::runtime_error& error) {
                log_error("SIGUSR1: {}; the status is not logged", error.what());
            }
        } catch (const std::bad_alloc&) {
            log_error("SIGUSR1: out of memory; the status is not logged");
        }
    }

    std::string read_status() {
        if (!facts_.dispatcher->may_use_maps()) throw std::runtime_error(why_maps_are_refused);
        for (auto before = attached();;) {
            facts_.self.state = state_of(facts_.self, before);
            auto text = to_text(read_statuses(std::span(&facts_.self, 1)));
            const auto now = attached();
            if (now == before) return text;
            before = now;  // a stop has begun meanwhile: the text may have a part of each state
        }
    }

    // Asks only while the gate is open: a stop closes the listener too. (accept(2) would tell that it was destroyed,
    // but the server may accept nobody just now, and the map may keep the socket.)
    std::string why_not_steering() {
        std::string_view why;
        while_open([&] {
            if (!is_listening(facts_.listener))
                why = why_not_listening;
            else if (Dispatcher::is_attached(facts_.gate->link) == false)
                why = "the BPF program was detached from the network namespace (for example by 'bpftool link detach')";
        });
        if (why.empty()) return {};
        return fmt::format("reload: {}: the ports are closed. The server ends, so that it can be started again", why);
    }

    std::optional<bool> attached() {
        const std::lock_guard lock(facts_.gate->mutex);
        return facts_.gate->stays_open ? true : Dispatcher::is_attached(facts_.gate->link);
    }

    bool is_open() {
        return while_open([] {});
    }

    // Calls `step`, and keeps the gate open meanwhile. Returns false, without a call, if the gate is closed.
    template <typename Step>
    bool while_open(Step step) {
        const std::lock_guard lock(facts_.gate->mutex);
        if (!facts_.gate->closed) step();
        return !facts_.gate->closed;
    }

    Housekeeper::Facts facts_;
    Fd end_;
    Fd signals_ = signal_descriptor({SIGHUP, SIGUSR1, SIGUSR2});
    std::uint64_t listener_cookie_ = socket_cookie(facts_.listener);
};

}  // namespace

void Gate::close(bool keep_open) {
    const std::lock_guard lock(mutex);
    closed = true;
    stays_open = keep_open;
    link = {};
    // Closed here, as the housekeeper may hang; the shutdown ends its poll(2), which would keep the socket.
    ::shutdown(commands.get(), SHUT_RDWR);
    while (const Fd command{::accept4(commands.get(), nullptr, nullptr, SOCK_CLOEXEC)})
        answer_reload(command, false, no_reload_in_a_stop);
    commands = Fd();
}

Housekeeper::Housekeeper(Facts facts) : gate_(facts.gate) {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) fail("making a pair of sockets");
    end_ = Fd(ends[0]);
    Fd end_of_thread(ends[1]);
    gate_->commands = open_reload_socket();
    const auto work = std::make_shared<Housework>(std::move(facts), std::move(end_of_thread));
    thread_ = start_thread([work] { work->run(); });
    ::pthread_setname_np(thread_.native_handle(), "housekeeper");  // for 'ps -L'
}

Housekeeper::~Housekeeper() {
    gate_->close(false);
    ::shutdown(end_.get(), SHUT_WR);
    constexpr int limit_ms = 1000;  // more than a reload needs
    pollfd ended{.fd = end_.get(), .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, limit_ms) == 1 ? thread_.join() : thread_.detach();
}

}  // namespace echo_server
