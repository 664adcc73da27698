// SPDX-License-Identifier: BSD-2-Clause
#include "service/service.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/descriptor_limit.h"
#include "base/error.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "base/processes.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "net/endpoint.h"
#include "net/listener.h"
#include "net/socket_diag.h"
#include "net/vrf.h"

namespace echo_server {

namespace {

Fd make_eventfd() {
    Fd made(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!made) fail("making an eventfd");
    return made;
}

std::uint64_t nanoseconds_of(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

// The program steers clients of every interface to the socket, and the kernel does not check again.
void warn_of_interfaces(int listener) {
    if (const auto name = bound_interface(listener); !name.empty())
        return log_problem(
            "the socket is bound to the interface {} ('BindToDevice=' in the socket unit, or 'ip vrf exec'): clients that "
            "come by another get no answer",
            name);
    if (const auto warning = explain_vrf(); !warning.empty()) log_problem(warning);
}

}  // namespace

Service::Service(const Options& options)
    : options_(options),
      by_root_(::geteuid() == 0),
      user_(find_user(options.user)),
      dispatcher_((set_libbpf_verbose(options.verbose), options.addresses), options.threads),
      takeover_(prepare_takeover(options.replace)),
      server_(listener(), {.log_connections = options.verbose, .idle_timeout = options.idle_timeout},
              dispatcher_.counters()),
      reload_(server_.io(), reload_memory_, options, user_, dispatcher_, server_.listener()),
      stop_signals_(server_.io(), signal_descriptor({SIGINT, SIGTERM}).release()),
      replaced_(server_.io(), make_eventfd().release()) {
    dispatcher_.set_listener(server_.listener());
    const auto [ports, warnings] = reload_.first_plan(stop_signals_.native_handle());
    for (const auto& warning : warnings) log_problem(warning);
    warn_of_interfaces(server_.listener());
    pin_maps();
    open_ports(ports);
    check_alone(dispatcher_.program_id(), takeover_);
    // While it can: what may still fail, as threads may, comes later, as it must not have root's rights.
    pins_.publish_as_root();
    const bool kept_cap_bpf = drop_privileges(user_, [this] { return !dispatcher_.may_use_maps(); });
    server_.start_threads();  // only now, as privileges are a thread's own
    reload_.wait_for_hangup();
    wait_for_stop_signal();
    wait_for_replacement();
    check_stop_signals();
    pins_.publish();  // of the running server, so not before all else is done
    warn_of_lost_rights(kept_cap_bpf);
    if (takeover_) takeover_->complete();  // what comes behind it can't fail, nor hang with a file system
    notify_ready(describe_open(ports));
    announce(ports, kept_cap_bpf);
}

void Service::run() {
    server_.run();
    const auto open = server_.open_connections();
    log_line(open == 0 ? "stopped" : fmt::format("stopped; {} cut off", plural(open, "connection")));
}

Fd Service::listener() {
    auto passed = passed_socket();
    Fd taken = takeover_ ? takeover_->take_listener() : Fd();
    if (taken && passed)
        throw std::runtime_error(
            "--replace: systemd has passed a socket, and the running server has another; use one of the two");
    if (!taken && !passed) return open_listener(options_.listen.value_or(parse_endpoint("127.0.0.1:7777")));

    Fd listener = taken ? adopt_listener(std::move(taken), Origin::running_server)
                        : adopt_listener(std::move(*passed), Origin::systemd);
    const auto bound = to_string(local_endpoint(listener.get()));
    if (options_.listen && to_string(*options_.listen) != bound)
        throw std::runtime_error(fmt::format(
            "--listen {}: there is a socket already, from {}, and it is bound to {}; leave out --listen to use it",
            to_string(*options_.listen), passed ? "systemd" : "the running server", bound));
    if (passed && serves_ip4_alone(listener))
        log_problem(
            "the socket is an IPv4 one: clients on IPv6 get no answer; 'ListenStream=[::ffff:127.0.0.1]:7777' "
            "with 'BindIPv6Only=both' in the socket unit serves both");
    return listener;
}

void Service::publish() {
    echo_instance instance{};
    instance.netns = netns_ = CurrentNetns().inode;
    instance.pid_namespace = pid_namespace();
    instance.started = nanoseconds_of(CLOCK_BOOTTIME);
    instance.started_wall = nanoseconds_of(CLOCK_REALTIME);
    instance.process_start = start_of_this_process();
    instance.time_namespace = time_namespace();
    instance.max_connections = server_.max_connections();
    instance.listener = server_.listener();
    instance.replaced = replaced_.native_handle();
    constexpr std::string_view version = ECHO_SERVER_VERSION;
    version.copy(instance.version, sizeof(instance.version) - 1);
    instance.pid = static_cast<__u32>(::getpid());
    dispatcher_.publish(instance);
}

void Service::open_ports(const PortSet& ports) {
    server_.set_max_connections(connection_limit(options_.max_connections));
    dispatcher_.set_ports(ports);
    publish();
    dispatcher_.attach();
}

void Service::pin_maps() {
    if (!options_.pin) return;
    // echo_ports is published last: a start that is killed in between leaves the user that of the running server.
    pins_.add(*options_.pin, {{"echo_socket", dispatcher_.socket_fd()}, {"echo_ports", dispatcher_.ports_fd()}}, user_);
}

void Service::announce(const PortSet& ports, bool kept_cap_bpf) {
    const auto kill = fmt::format("{}kill", by_root_ ? "sudo " : "");
    const auto pid = ::getpid();
    log_line("echo-server {}: {}", ECHO_SERVER_VERSION, describe_open(ports));
    log_line("  socket     {}, the only one (sk:{:x} in 'ss -tlne')", to_string(local_endpoint(server_.listener())),
             socket_cookie(server_.listener()));
    log_line("  namespace  {} (netns_ino in 'bpftool link')", netns_);
    if (!options_.addresses.empty()) log_line("  addresses  {}", to_string(options_.addresses));
    log_line("  user       {}, {}", user_.name, kept_cap_bpf ? "with CAP_BPF alone" : "without any capability");
    if (options_.pin) log_line("  pinned     {}/echo_ports, echo_socket", *options_.pin);
    if (takeover_)
        log_line("  replaces   process {}, which drain{}", takeover_->pids(), takeover_->count() == 1 ? "s" : "");
    if (options_.ports_file) log_line("  reload     edit {}, then {} -HUP {}", *options_.ports_file, kill, pid);
    log_line("  stop       Ctrl-C, or {} {}", kill, pid);
}

void Service::wait_for_stop_signal() {
    stop_signals_.async_wait(asio::posix::stream_descriptor::wait_read,
                             in_memory(stop_memory_, [this](std::error_code error) {
                                 if (error) return;
                                 take_signal(stop_signals_.native_handle());
                                 wait_for_stop_signal();
                                 stop(EchoServer::Backlog::accept);
                             }));
}

void Service::wait_for_replacement() {
    replaced_.async_wait(asio::posix::stream_descriptor::wait_read, [this](std::error_code error) {
        if (error || stopping_) return;
        log_line("replaced: another process serves from now on");
        stop(EchoServer::Backlog::leave);
    });
}

std::function<bool()> Service::begun_connections() {
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

void Service::stop(EchoServer::Backlog backlog) {
    if (stopping_) return server_.stop();
    stopping_ = true;
    reload_.stop();
    auto begun = begun_connections();  // before the ports close
    dispatcher_.detach();
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
