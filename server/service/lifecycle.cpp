// SPDX-License-Identifier: BSD-2-Clause
#include "service/lifecycle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <new>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "net/sockets.h"
#include "service/ports.h"
#include "service/reload_command.h"
#include "status/status.h"

using asio::posix::stream_descriptor;

namespace echo_server {
namespace {

constexpr auto no_reload_in_a_stop = "reload: the server is stopping; nothing is reloaded";

// What the thread does. It owns everything that it uses, because it may outlive the Housekeeper.
class Housework {
 public:
    Housework(Housekeeper::Facts facts, Fd end) : facts_(std::move(facts)), end_(std::move(end)) {}

    void run() {
        char begin = 0;
        if (::read(end_.get(), &begin, sizeof(begin)) != sizeof(begin)) return;
        for (;;) {
            std::array ready{pollfd{.fd = end_.get(), .events = POLLIN, .revents = 0},
                             pollfd{.fd = signals_.get(), .events = POLLIN, .revents = 0},
                             pollfd{.fd = commands(), .events = POLLIN, .revents = 0}};
            if (::poll(ready.data(), ready.size(), time_to_next_look()) < 0) continue;
            if (ready[0].revents != 0) return;
            // Both in each turn, so that many signals do not delay the commands, or the other way round.
            if (ready[1].revents != 0) answer_signals();
            if (ready[2].revents != 0) answer_command();
            if (time_to_next_look() == 0) look();
        }
    }

 private:
    void answer_signals() {
        signalfd_siginfo hangup{};
        const auto signals = take_signals(signals_.get(), &hangup);
        if (::sigismember(&signals, SIGHUP) == 1) answer_hangup(hangup);
        if (::sigismember(&signals, SIGUSR1) == 1) log_status();
        if (::sigismember(&signals, SIGUSR2) != 1) return;
        facts_.dispatcher->reset_port_stats();
        log_line("SIGUSR2: the figures by port are reset");
    }

    // A shell that ends, or sudo, can send SIGHUP a moment before the terminal is gone. This reloads, look() stops.
    void answer_hangup(const signalfd_siginfo& hangup) {
        const bool from_terminal = facts_.terminal.may_have_sent(hangup);
        if (from_terminal) perhaps_hung_up_ = std::chrono::steady_clock::now();
        if (!from_terminal || !leave_terminal()) reload({});
    }

    bool leave_terminal() {
        constexpr auto moment = std::chrono::seconds(5);
        if (std::chrono::steady_clock::now() - perhaps_hung_up_ > moment || !facts_.terminal.is_gone()) return false;
        // Only once: shell and kernel both send SIGHUP, and a second stop signal would end the drain.
        if (facts_.terminal.is_ignored() || std::exchange(left_terminal_, true)) return true;
        log_line("SIGHUP: the terminal in which the server was started is gone");
        ::kill(::getpid(), SIGTERM);
        return true;
    }

    // In ms, rounded up; -1 for never.
    int time_to_next_look() {
        if (facts_.options.shadow_listeners) return -1;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_look_ - std::chrono::steady_clock::now());
        return static_cast<int>(std::max<std::chrono::milliseconds::rep>(left.count(), 0));
    }

    void look() {
        constexpr int share = 100;  // looks take at most 1/100 of a CPU
        constexpr std::chrono::nanoseconds period = std::chrono::seconds(1);
        const auto start = time_of(CLOCK_THREAD_CPUTIME_ID);
        leave_terminal();
        try {
            const auto line = is_open() ? facts_.ports.look() : "";
            if (!line.empty()) {
                log_line(line);
                notify_state("");
            }
            look_fails_ = false;
        } catch (const std::exception& error) {
            // warn() allocates nothing: memory may have run out.
            if (!std::exchange(look_fails_, true))
                warnings_.warn("looking for programs that listen on our ports: {}; the server tries again",
                               error.what());
        }
        const auto used = time_of(CLOCK_THREAD_CPUTIME_ID) - start;
        next_look_ = std::chrono::steady_clock::now() + std::max(period, share * used);
    }

    // -1, which poll(2) ignores, once the gate is closed.
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
                "reload: out of memory; some ports may differ from the file: reload again";
            log_error(no_memory);
            while_open([] { notify("READY=1"); });
            answer_reload(command, false, no_memory);
        }
    }

    void make_ports_as_listed(const Fd& command) {
        const auto& options = facts_.options;
        std::string line;
        std::string result = "the ports stay as they are";
        failure_.clear();
        try {
            if (!while_open(notify_reloading)) throw std::runtime_error(no_reload_in_a_stop);
            if (!options.ports_file)
                throw std::runtime_error("reload: there is nothing to re-read without --ports-file");
            auto plan = facts_.ports.plan();
            if (!is_open()) throw std::runtime_error(no_reload_in_a_stop);
            result = fmt::format("some ports may differ from {} until a reload succeeds", *options.ports_file);
            const auto open = fmt::format("{} open{}", plural(plan.open().size(), "port"), plan.left_out());
            const auto [added, removed] = facts_.ports.set(std::move(plan));
            const auto what = added.empty() && removed.empty()
                                  ? "nothing changed"
                                  : fmt::format("added {}; removed {}", added.to_string(ranges_in_a_line),
                                                removed.to_string(ranges_in_a_line));
            line = fmt::format("reloaded {}: {}; {}", *options.ports_file, what, open);
        } catch (const std::runtime_error& error) {
            failure_ = error.what();
            line = is_open() ? fmt::format("{}; {}", failure_, result) : no_reload_in_a_stop;
        }
        failure_.empty() ? log_line(line) : log_error(line);
        // systemd first: when the command ends, 'systemctl reload' must find the service ready.
        notify_state("READY=1");
        answer_reload(command, failure_.empty(), line);
    }

    void notify_state(std::string_view state) {
        const auto status = fmt::format("{}{}{}", facts_.ports.describe(),
                                        failure_.empty() ? "" : "; the last reload failed: ", failure_);
        while_open([&] { notify(state, status); });
    }

    void log_status() {
        try {
            try {
                log_text(status_text());
            } catch (const std::runtime_error& error) {
                log_error("SIGUSR1: {}; the status is not logged", error.what());
            }
        } catch (const std::bad_alloc&) {
            log_error("SIGUSR1: out of memory; the status is not logged");
        }
    }

    std::string status_text() {
        if (!facts_.dispatcher->may_use_maps()) throw std::runtime_error(why_maps_are_refused);
        for (auto before = attached();;) {
            facts_.self.state = state_of(facts_.self, before);
            auto text = to_text(read_statuses(std::span(&facts_.self, 1)));
            const auto now = attached();
            if (now == before) return text;
            before = now;  // a stop has begun meanwhile: the text may mix both states
        }
    }

    // Only while the gate is open, because a stop closes the listener too. (accept(2) fails if the socket was
    // destroyed, but the server may have paused accepting, and the map may keep the socket.)
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
        return Dispatcher::is_attached(facts_.gate->link);
    }

    bool is_open() {
        return while_open([] {});
    }

    // Calls `step` while the gate can't close. If it is closed already, returns false without a call.
    template <typename Step>
    bool while_open(Step step) {
        const std::lock_guard lock(facts_.gate->mutex);
        if (!facts_.gate->closed) step();
        return !facts_.gate->closed;
    }

    Housekeeper::Facts facts_;
    Fd end_;
    Fd signals_ = signal_descriptor({SIGHUP, SIGUSR1, SIGUSR2});
    std::chrono::steady_clock::time_point perhaps_hung_up_;
    bool left_terminal_ = false;
    std::string failure_;  // of the last reload
    bool look_fails_ = false;
    Warnings warnings_;
    std::chrono::steady_clock::time_point next_look_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
};

}  // namespace

void Gate::close(bool stays) {
    const std::lock_guard lock(mutex);
    closed = true;
    if (!stays) link = {};
    // Not by the housekeeper, which may hang. shutdown(2) ends its poll(2), which would keep the socket open.
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

void Housekeeper::begin() { std::ignore = ::send(end_.get(), "", 1, MSG_NOSIGNAL); }

Housekeeper::~Housekeeper() {
    gate_->close(false);
    ::shutdown(end_.get(), SHUT_WR);
    constexpr int limit_ms = 1000;  // more than a reload needs
    pollfd ended{.fd = end_.get(), .events = POLLIN, .revents = 0};
    ::poll(&ended, 1, limit_ms) == 1 ? thread_.join() : thread_.detach();
}

Lifecycle::Lifecycle(std::chrono::seconds drain_timeout, EchoServer& server, Gate& gate, DescriptorStore& store)
    : drain_timeout_(drain_timeout),
      server_(server),
      gate_(gate),
      store_(store),
      stop_signals_(server.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      replaced_(server.io(), checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "making an eventfd").release()),
      watchdog_(server.io()) {}

void Lifecycle::begin() {
    wait_for_stop_signal();
    wait_for_replacement();
    if (const auto limit = watchdog_limit()) answer_watchdog(*limit / 4);
}

// If a thread hangs, there is no answer, and systemd restarts the service.
void Lifecycle::answer_watchdog(std::chrono::microseconds period) {
    if (server_.all_threads_have_turned()) notify("WATCHDOG=1");
    watchdog_.expires_after(period);
    watchdog_.async_wait(in_memory(server_.memory(), [this, period](std::error_code) { answer_watchdog(period); }));
}

void Lifecycle::wait_for_stop_signal() {
    stop_signals_.async_wait(stream_descriptor::wait_read, in_memory(server_.memory(), [this](std::error_code error) {
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
        // The replaced service must not restart onto the socket of the new server.
        stopping_ = Reason::replaced;
        gate_.close(false);
        store_.clear();
    });
}

void Lifecycle::stop(Reason reason) {
    if (stopping_) return server_.stop();
    stopping_ = reason;
    // The server can't tell a restart from a stop. So new connections wait for the next process; if none follows,
    // systemd closes the ports after this process has ended.
    const bool program_stays = reason == Reason::signal && DescriptorStore::exists();
    gate_.close(program_stays);
    const bool leave_backlog = program_stays || reason == Reason::replaced;
    server_.drain(drain_timeout_, leave_backlog);
    if (!program_stays) store_.clear();  // last, because it needs memory
    const auto open = server_.open_connections();
    std::vector<std::string> waited_for;
    if (open > 0) waited_for.push_back(plural(open, "connection"));
    if (server_.is_accepting()) waited_for.emplace_back("clients that are not accepted yet");
    if (const auto seconds = drain_timeout_.count(); !waited_for.empty() && seconds > 0)
        log_line("{}; waiting up to {} s for {}",
                 program_stays                ? "stopping: new connections wait for the next start"
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
