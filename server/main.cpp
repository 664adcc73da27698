// SPDX-License-Identifier: BSD-2-Clause
#include <sys/socket.h>
#include <unistd.h>

#include <asio/signal_set.hpp>
#include <csignal>
#include <cstdint>
#include <exception>
#include <variant>

#include "dispatcher.h"
#include "echo_server.h"
#include "endpoint.h"
#include "listener.h"
#include "log.h"
#include "options.h"
#include "ports_file.h"

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

class Service {
 public:
    explicit Service(const Options& options)
        : options_(options), server_(open_listener(options.listen), options.verbose) {
        const PortSet ports = wanted_ports(options);
        dispatcher_.set_ports(ports);
        dispatcher_.attach();
        announce(ports);
        wait_for_signal();
    }

    void run() {
        server_.run();
        const auto open = server_.open_connections();
        log_line(open == 0 ? "stopped" : fmt::format("stopped; {} cut off", count(open, "connection")));
    }

 private:
    void announce(const PortSet& ports);
    void wait_for_signal();
    void reload();
    void stop();

    const Options& options_;
    EchoServer server_;
    asio::signal_set signals_{server_.io(), SIGHUP, SIGINT, SIGTERM};
    Dispatcher dispatcher_{server_.listener()};  // behind the server: its link goes before the socket does
    bool stopping_ = false;
};

void Service::announce(const PortSet& ports) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    ::getsockopt(server_.listener(), SOL_SOCKET, SO_COOKIE, &cookie, &size);

    const auto kill = fmt::format("{}kill", ::geteuid() == 0 ? "sudo " : "");
    const auto pid = ::getpid();
    log_line("echo-server {}: {} open: {}", ECHO_SERVER_VERSION, count(ports.size(), "TCP port"),
             ports.to_string(ranges_in_a_line));
    log_line("  socket     {}, the only one (sk:{:x} in 'ss -tlne')", to_string(server_.local_endpoint()), cookie);
    log_line("  namespace  {} (netns_ino in 'bpftool link')", dispatcher_.netns_inode());
    if (options_.ports_file) log_line("  reload     edit {}, then {} -HUP {}", *options_.ports_file, kill, pid);
    log_line("  stop       Ctrl-C, or {} {}", kill, pid);
}

void Service::wait_for_signal() {
    signals_.async_wait([this](std::error_code error, int signal) {
        if (error) return;
        wait_for_signal();
        if (signal == SIGHUP)
            reload();
        else
            stop();
    });
}

void Service::reload() {
    if (stopping_) return log_problem("SIGHUP: the server is stopping; the ports stay closed");
    if (!options_.ports_file)
        return log_problem("SIGHUP: there is nothing to re-read without --ports-file; the ports stay as they are");
    PortSet ports;
    try {
        ports = wanted_ports(options_);
    } catch (const std::exception& error) {
        return log_problem("{}; the ports stay as they are", error.what());
    }
    try {
        const auto [added, removed] = dispatcher_.set_ports(ports);
        if (added.empty() && removed.empty())
            return log_line("reloaded {}: nothing changed; {} open", *options_.ports_file, count(ports.size(), "port"));
        log_line("reloaded {}: added {}; removed {}; {} open", *options_.ports_file, added.to_string(ranges_in_a_line),
                 removed.to_string(ranges_in_a_line), count(ports.size(), "port"));
    } catch (const std::exception& error) {
        log_problem("{}; not all ports are as {} has them: send SIGHUP again", error.what(), *options_.ports_file);
    }
}

void Service::stop() {
    if (stopping_) return server_.stop();
    stopping_ = true;
    dispatcher_.detach();
    server_.drain(options_.drain_timeout);
    if (const auto open = server_.open_connections(); open > 0 && options_.drain_timeout.count() > 0)
        log_line("stopping: the ports are closed; waiting up to {} s for {}", options_.drain_timeout.count(),
                 count(open, "connection"));
}

int run(int argc, char** argv) {
    const auto parsed = parse_command_line(argc, argv);
    if (const auto* exit = std::get_if<Exit>(&parsed)) return exit->code;
    const auto& options = std::get<Options>(parsed);

    set_libbpf_verbose(options.verbose);
    Service(options).run();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);  // a log reader that goes away must not take the server with it
    std::signal(SIGHUP, SIG_IGN);   // until the server handles it, which is before it reads the ports file
    try {
        return run(argc, argv);
    } catch (const std::exception& error) {
        log_problem(error.what());
        return 1;
    }
}
