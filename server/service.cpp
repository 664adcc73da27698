// SPDX-License-Identifier: BSD-2-Clause
#include "service.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <ctime>
#include <new>

#include "descriptors.h"
#include "endpoint.h"
#include "listener.h"
#include "log.h"
#include "netns.h"
#include "ports_file.h"
#include "shadowing.h"
#include "signals.h"
#include "systemd.h"

using std::chrono::steady_clock;

namespace {

constexpr std::size_t ranges_in_a_line = 16;

PortSet wanted_ports(const Options& options) {
    PortList list = options.ports;
    if (options.ports_file) list.add(read_ports_file(*options.ports_file));
    const PortSet ports = list.ports();
    if (ports.empty())
        throw std::runtime_error(
            fmt::format("reading ports file {}: after the exclusions no port is left", *options.ports_file));
    return ports;
}

std::string count(std::size_t number, std::string_view noun) {
    return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

std::string describe(const PortSet& ports) {
    return fmt::format("{} open: {}", count(ports.size(), "TCP port"), ports.to_string(ranges_in_a_line));
}

}  // namespace

Service::Service(const Options& options)
    : options_(options),
      by_root_(::geteuid() == 0),
      user_(find_user(options.user)),
      dispatcher_(options.addresses, options.threads),
      takeover_(prepare_takeover(options.replace)),
      server_(listener(), {.log_connections = options.verbose, .idle_timeout = options.idle_timeout},
              dispatcher_.counters()),
      hangup_(server_.io(), signal_descriptor({SIGHUP}).release()),
      hangup_pause_(server_.io()),
      stop_signals_(server_.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      replaced_(server_.io(), ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    dispatcher_.set_listener(server_.listener());
    const PortSet ports = wanted_ports(options);
    pin_maps();
    open_ports(ports);
    check_alone(dispatcher_.program_id(), takeover_);
    const bool kept_cap_bpf = drop_privileges(user_, [this] { return !dispatcher_.may_use_maps(); });
    server_.start_threads();  // only now, as privileges are a thread's own
    wait_for_hangup();
    wait_for_stop_signal();
    wait_for_replacement();
    check_stop_signals();
    if (takeover_) takeover_->complete();  // what comes behind it can't fail
    pins_.keep();
    notify_ready(describe(ports));
    warn_of_lost_rights(kept_cap_bpf);
    announce(ports, kept_cap_bpf);
}

void Service::run() {
    server_.run();
    const auto open = server_.open_connections();
    log_line(open == 0 ? "stopped" : fmt::format("stopped; {} cut off", count(open, "connection")));
}

Fd Service::listener() {
    auto passed = passed_socket();
    if (takeover_ && passed)
        throw std::runtime_error(
            "--replace: systemd has passed a socket, and the running server has another; use one of the two");
    if (!takeover_ && !passed) return open_listener(options_.listen.value_or(parse_endpoint("127.0.0.1:7777")));

    Fd listener = adopt_listener(takeover_ ? takeover_->take_listener() : std::move(*passed));
    const auto bound = to_string(local_endpoint(listener));
    if (options_.listen && to_string(*options_.listen) != bound)
        throw std::runtime_error(fmt::format(
            "--listen {}: there is a socket already, from {}, and it is bound to {}; leave out --listen to use it",
            to_string(*options_.listen), takeover_ ? "the running server" : "systemd", bound));
    if (passed && serves_ip4_alone(listener))
        log_problem(
            "the socket is an IPv4 one: clients on IPv6 get no answer; 'ListenStream=[::ffff:127.0.0.1]:7777' "
            "with 'BindIPv6Only=both' in the socket unit serves both");
    return listener;
}

void Service::publish() {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    auto& instance = dispatcher_.instance();
    instance.netns = CurrentNetns().inode;
    instance.pid_namespace = pid_namespace();
    instance.started = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
    instance.max_connections = server_.max_connections();
    instance.listener = server_.listener();
    instance.replaced = replaced_.native_handle();
    constexpr std::string_view version = ECHO_SERVER_VERSION;
    version.copy(instance.version, sizeof(instance.version) - 1);
    instance.pid = static_cast<__u32>(::getpid());
}

void Service::open_ports(const PortSet& ports) {
    check_listeners(ports);
    server_.set_max_connections(connection_limit(options_.max_connections));
    dispatcher_.set_ports(ports);
    publish();
    dispatcher_.attach();
}

void Service::check_listeners(const PortSet& ports) {
    std::vector<ListeningSocket> others;
    try {
        others = shadowed(listening_sockets(), ports, options_.addresses, socket_cookie(server_.listener()));
    } catch (const std::runtime_error& error) {
        if (options_.shadow_listeners) return log_problem("{}; ports may be taken from other listeners", error.what());
        throw std::runtime_error(
            fmt::format("{}. --shadow-listeners starts without knowing whom a port is taken from", error.what()));
    }
    if (others.empty()) return;
    if (!options_.shadow_listeners) throw std::runtime_error(explain_refusal(others));
    log_problem(explain_shadowing(others));
}

void Service::pin_maps() {
    if (!options_.pin) return;
    pins_.add(*options_.pin, {{"echo_ports", dispatcher_.ports_fd()}, {"echo_socket", dispatcher_.socket_fd()}}, user_);
}

void Service::announce(const PortSet& ports, bool kept_cap_bpf) {
    const auto kill = fmt::format("{}kill", by_root_ ? "sudo " : "");
    const auto pid = ::getpid();
    log_line("echo-server {}: {}", ECHO_SERVER_VERSION, describe(ports));
    log_line("  socket     {}, the only one (sk:{:x} in 'ss -tlne')", to_string(server_.local_endpoint()),
             socket_cookie(server_.listener()));
    log_line("  namespace  {} (netns_ino in 'bpftool link')", dispatcher_.instance().netns);
    if (!options_.addresses.empty()) log_line("  addresses  {}", to_string(options_.addresses));
    log_line("  user       {}, {}", user_.name, kept_cap_bpf ? "with CAP_BPF alone" : "without any capability");
    if (options_.pin) log_line("  pinned     {}/echo_ports, echo_socket", *options_.pin);
    if (takeover_)
        log_line("  replaces   process {}, which drain{}", takeover_->pids(), takeover_->count() == 1 ? "s" : "");
    if (options_.ports_file) log_line("  reload     edit {}, then {} -HUP {}", *options_.ports_file, kill, pid);
    log_line("  stop       Ctrl-C, or {} {}", kill, pid);
}

void Service::wait_for_hangup() {
    hangup_.async_wait(
        asio::posix::stream_descriptor::wait_read, InMemory(hangup_memory_, [this](std::error_code error) {
            if (error) return;
            take_signal(hangup_.native_handle());
            const auto start = steady_clock::now();
            reload();
            // Under a storm of signals half of the time is the clients'.
            hangup_pause_.expires_after(steady_clock::now() - start);
            hangup_pause_.async_wait(InMemory(hangup_memory_, [this](std::error_code) { wait_for_hangup(); }));
        }));
}

void Service::wait_for_stop_signal() {
    stop_signals_.async_wait(asio::posix::stream_descriptor::wait_read,
                             InMemory(stop_memory_, [this](std::error_code error) {
                                 if (error) return;
                                 take_signal(stop_signals_.native_handle());
                                 wait_for_stop_signal();
                                 stop(EchoServer::Queue::ours);
                             }));
}

void Service::wait_for_replacement() {
    replaced_.async_wait(asio::posix::stream_descriptor::wait_read, [this](std::error_code error) {
        if (error || stopping_) return;
        log_line("replaced: another process serves from now on");
        stop(EchoServer::Queue::left_to_another_process);
    });
}

void Service::reload() noexcept {
    try {
        if (stopping_) return log_problem("SIGHUP: the server is stopping; the ports stay closed");
        notify_reloading();
        if (options_.ports_file)
            apply_ports_file();
        else
            log_problem("SIGHUP: there is nothing to re-read without --ports-file; the ports stay as they are");
        notify_ready(status_line());
    } catch (const std::bad_alloc&) {
        log_problem("SIGHUP: out of memory; not all ports may be as the file has them: send SIGHUP again");
        notify_ready_again();
    }
}

std::string Service::status_line() const {
    try {
        return describe(dispatcher_.ports());
    } catch (const std::exception& error) {
        return error.what();
    }
}

void Service::apply_ports_file() {
    const auto& file = *options_.ports_file;
    PortSet ports;
    try {
        ports = wanted_ports(options_);
        check_listeners(ports - dispatcher_.ports());
    } catch (const std::exception& error) {
        return log_problem("{}; the ports stay as they are", error.what());
    }
    try {
        const auto [added, removed] = dispatcher_.set_ports(ports);
        if (added.empty() && removed.empty())
            return log_line("reloaded {}: nothing changed; {} open", file, count(ports.size(), "port"));
        log_line("reloaded {}: added {}; removed {}; {} open", file, added.to_string(ranges_in_a_line),
                 removed.to_string(ranges_in_a_line), count(ports.size(), "port"));
    } catch (const std::exception& error) {
        log_problem("{}; not all ports are as {} has them: send SIGHUP again", error.what(), file);
    }
}

void Service::stop(EchoServer::Queue queue) {
    if (stopping_) return server_.stop();
    stopping_ = true;
    dispatcher_.detach();
    server_.drain(options_.drain_timeout, queue);
    const auto open = server_.open_connections();
    const auto seconds = options_.drain_timeout.count();
    if (open > 0 && seconds > 0)
        log_line("{}; waiting up to {} s for {}",
                 queue == EchoServer::Queue::ours ? "stopping: the ports are closed" : "stopping", seconds,
                 count(open, "connection"));
    notify_stopping(fmt::format("Draining: {} open", count(open, "connection")));
}
