// SPDX-License-Identifier: BSD-2-Clause
#include "service/start.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "dispatch/dispatcher.h"
#include "dispatch/instances.h"
#include "dispatch/pins.h"
#include "echo/server.h"
#include "net/address.h"
#include "net/listener.h"
#include "net/sockets.h"
#include "service/lifecycle.h"
#include "service/ports.h"
#include "service/replacement.h"

namespace echo_server {

namespace {

using asio::ip::tcp;

bool is_bound_to(const Fd& socket, const tcp::endpoint& wanted) {
    const auto bound = local_endpoint(socket.get());
    return unmapped(bound.address()) == unmapped(wanted.address()) &&
           (wanted.port() == 0 || wanted.port() == bound.port());
}

bool is_usable(const Fd& kept, const tcp::endpoint& wanted) {
    return is_listening(kept.get()) && is_bound_to(kept, wanted) && !is_of_another_netns(kept);
}

Fd take_kept(DescriptorStore& store, const tcp::endpoint& wanted) {
    for (auto& kept : store.stored())
        if (is_usable(kept.fd, wanted)) return adopt_listener(std::move(kept.fd));
    return {};
}

}  // namespace

Fd obtain_listener(const Options& options, std::optional<Replacement>& replacement, DescriptorStore& store) {
    Fd taken = replacement ? replacement->take_listener() : Fd();
    if (!taken) {
        const auto wanted = options.listen.value_or(parse_endpoint(default_listen_address));
        if (Fd kept = take_kept(store, wanted)) return kept;
        // A socket that is not used may have an address that overlaps.
        store.clear();
        return open_listener(wanted);
    }

    Fd listener = adopt_listener(std::move(taken));
    const auto bound = to_string(local_endpoint(listener.get()));
    if (options.listen && to_string(*options.listen) != bound)
        throw std::runtime_error(fmt::format(
            "--listen {}: there is a socket already, from the running server, and it is bound to {}; leave out "
            "--listen to use it",
            to_string(*options.listen), bound));
    return listener;
}

void announce(const Announcement& facts) {
    const auto& options = facts.options;
    if (logs_to_journal())
        return log_line("version {}, {}; socket {}, user {}", ECHO_SERVER_VERSION, describe_open(facts.ports),
                        to_string(local_endpoint(facts.listener)), facts.user.name);
    const auto* sudo = facts.by_root ? "sudo " : "";
    const auto pid = ::getpid();
    log_line("echo-server {}: {}", ECHO_SERVER_VERSION, describe_open(facts.ports));
    log_line("  socket     {}, the only one (sk:{:x} in 'ss -tlne')", to_string(local_endpoint(facts.listener)),
             socket_cookie(facts.listener));
    log_line("  namespace  {} (netns_ino in 'bpftool link')", CurrentNetns().inode);
    if (!options.addresses.empty()) log_line("  addresses  {}", to_string(options.addresses));
    log_line("  user       {}, {}", facts.user.name,
             facts.kept_cap_bpf ? "with CAP_BPF alone" : "without any capability");
    if (options.pin) log_line("  pinned     {}/echo_ports, echo_socket", *options.pin);
    if (const auto& replacement = facts.replacement)
        log_line("  replaces   process {}, which drain{}", replacement->pids(), replacement->count() == 1 ? "s" : "");
    // Process 1 of a container is another process where its log is read.
    const bool of_container = pid == 1;
    if (options.ports_file)
        log_line("  reload     edit {}, then {}echo-server reload{}", *options.ports_file, sudo,
                 of_container ? "" : fmt::format(" {}", pid));
    log_line("  stop       Ctrl-C, or {}", of_container ? "send SIGTERM" : fmt::format("{}kill {}", sudo, pid));
}

void warn_of_addresses(const std::vector<AddressPrefix>& prefixes) {
    for (const auto& prefix : without_local_address(prefixes))
        log_warning(
            "no local address is in {0}: nobody is answered there, unless this host gets such an address, or takes all "
            "of them by 'ip route add local {0} dev lo'",
            to_string(prefix));
}

void warn_of_lost_rights(const Options& options, const User& user, const Dispatcher& dispatcher, const Pins& pins,
                         bool kept_cap_bpf) {
    const bool may_update = dispatcher.may_use_maps();
    if (const auto& folder = options.pin) {
        if (pins.replaced_existing() && !options.replace)
            log_warning("pins of another echo-server in {} were replaced; if it still runs, its user has lost them",
                        *folder);
        if (!Pins::reachable(*folder))
            log_warning("user {} can't enter {}: the pins are of no use there, and will be left", user.name, *folder);
        else if (!pins.removable())
            log_warning("user {} can't remove pins from {}: they will be left there", user.name, *folder);
        if (kept_cap_bpf || !may_update)
            log_warning("user {} can't use the pins: that needs root (CAP_BPF), or Linux 5.19", user.name);
    }
    if (options.ports_file && !may_update) log_warning("SIGHUP will fail: {}", why_maps_are_refused);
}

namespace {

// The running server; nothing if there is none, or if this process may not know.
std::optional<Instance> find_running_server() {
    auto servers = running_servers(false);
    if (servers.empty() || !servers.front().identity) return {};  // another version's server can't be told
    return std::move(servers.front());
}

// Whether a socket of `wanted` would only be in the way of our own.
bool has_port(std::uint64_t listener, const asio::ip::tcp::endpoint& wanted) {
    return std::ranges::any_of(listening_sockets(), [&](const ListeningSocket& socket) {
        return socket.cookie == listener && socket.local.port() == wanted.port();
    });
}

// Without --listen, a new process takes the socket of a server that runs.
void check_listen_address(const Options& options, std::uint64_t own_listener) {
    if (!options.listen && own_listener != 0) return;
    const auto wanted = options.listen.value_or(parse_endpoint(default_listen_address));
    if (own_listener == 0 || !has_port(own_listener, wanted)) check_address(wanted);
}

// The user that the running server has become, perhaps by DynamicUser= in its unit; else the user that it would become.
User find_user_of(const std::optional<Instance>& running, const Options& options) {
    if (running && !options.user && in_this_pid_namespace(*running->identity))
        if (const auto user = user_of(static_cast<pid_t>(running->identity->pid))) return *user;
    return find_user(options.user);
}

}  // namespace

void check_start(const Options& options) {
    const auto running = find_running_server();
    check_descriptor_limit(options.threads, options.max_connections);
    const auto own_listener = running ? running->listener_cookie() : 0;
    const User user = find_user_of(running, options);
    const auto plan = plan_ports(options, user, {}, own_listener);
    for (const auto& warning : plan.warnings) log_warning(warning);
    if (const auto why = explain_unreadable(options, user); !why.empty()) throw std::runtime_error(why);
    check_listen_address(options, own_listener);
    if (options.pin) Pins::check_folder(*options.pin);
    warn_of_addresses(options.addresses);
    log_line("nothing is wrong; {}: {}", plural(plan.ports.size(), "TCP port"), plan.ports.to_string(ranges_in_a_line));
}

namespace {

// The names in the descriptor store have numbers that never come again, so the entries of two processes differ.
constexpr std::string_view link_prefix = "link-";
constexpr std::string_view listener_prefix = "listener-";

std::size_t count_links(const std::vector<NamedFd>& stored) {
    return static_cast<std::size_t>(
        std::ranges::count_if(stored, [](const NamedFd& fd) { return fd.name.starts_with(link_prefix); }));
}

// With the link, systemd keeps the program attached, and with the listener its backlog, while this process drains and
// the next one starts.
std::vector<DescriptorStore::Entry> entries(std::uint32_t program, int link, int listener) {
    return {{fmt::format("{}{}", link_prefix, program), link},
            {fmt::format("{}{:x}", listener_prefix, socket_cookie(listener)), listener}};
}

echo_instance identity_of(EchoServer& server, int replaced_event) {
    echo_instance identity{};
    identity.netns = CurrentNetns().inode;
    identity.pid_namespace = pid_namespace();
    identity.started = static_cast<__u64>(time_of(CLOCK_BOOTTIME).count());
    identity.started_wall = static_cast<__u64>(time_of(CLOCK_REALTIME).count());
    identity.process_start = start_of_this_process();
    identity.time_namespace = time_namespace();
    identity.max_connections = server.max_connections();
    identity.listener = server.listener();
    identity.replaced_event = replaced_event;
    constexpr std::string_view version = ECHO_SERVER_VERSION;
    version.copy(identity.version, sizeof(identity.version) - 1);
    identity.pid = static_cast<__u32>(::getpid());
    return identity;
}

void serve(const Options& options, DescriptorStore& store) {
    check_descriptor_limit(options.threads, options.max_connections);
    const bool by_root = ::geteuid() == 0;
    const User user = find_user(options.user);

    // Whatever was made last goes first, at the end and if a step fails: ports close before the socket does.
    set_libbpf_verbose(options.verbose);
    Dispatcher dispatcher(options.addresses, options.threads);
    auto replacement = prepare_replacement(options.replace);
    Lifecycle::Memory memory;
    EchoServer server(obtain_listener(options, replacement, store),
                      {.log_connections = options.verbose, .idle_timeout = options.idle_timeout}, dispatcher.counters(),
                      dispatcher.port_stats());
    dispatcher.set_listener(server.listener());
    Lifecycle lifecycle(options, user, dispatcher, server, store, memory);
    const PortSet ports = lifecycle.plan_ports();
    warn_of_addresses(options.addresses);
    Pins pins;
    // echo_ports comes last: a start that is killed between the two leaves the user the echo_ports of the running
    // server.
    if (options.pin)
        pins.add(*options.pin, {{"echo_socket", dispatcher.socket_fd()}, {"echo_ports", dispatcher.ports_fd()}}, user);
    server.set_max_connections(connection_limit(options.max_connections));

    // Open the ports. In a replacement the new program wins, and both servers accept from the socket that they share.
    dispatcher.set_ports(ports);
    const auto identity = identity_of(server, lifecycle.replaced_event());
    dispatcher.publish(identity);
    const int link = lifecycle.own(dispatcher.attach());
    const auto program = dispatcher.program_id();  // before Linux 5.19, nobody may ask without CAP_BPF
    check_alone(program, replacement, count_links(store.stored()));
    auto self = dispatcher.as_instance(identity);

    // Give up root. Steps that can still fail come later, so that they do not fail with root's rights.
    pins.publish_as_root();
    const bool kept_cap_bpf = drop_privileges(user, [&] { return !dispatcher.may_use_maps(); });
    server.start_threads();  // a thread has privileges of its own
    lifecycle.begin(std::move(self));
    check_stop_signals();
    pins.publish();  // it replaces the pins of the running server, so not before all other steps are done
    warn_of_lost_rights(options, user, dispatcher, pins, kept_cap_bpf);

    // From here on nothing fails, nor hangs with a file system: let the running server go.
    if (replacement) {
        replacement->complete();
        // Since the program was attached, its lookups led to the old process: they would look like clients that never
        // connected.
        dispatcher.reset_port_stats();
    }
    store.replace(entries(program, link, server.listener()));
    notify_ready(describe_open(ports));
    announce({options, user, ports, server.listener(), replacement, by_root, kept_cap_bpf});

    server.run();
    lifecycle.end();
}

}  // namespace

void serve(const Options& options) {
    DescriptorStore store(passed_descriptors());
    try {
        serve(options, store);
    } catch (const StoppedAtStart&) {
        throw;  // a restart may have stopped it: the next process gets what is in the store
    } catch (const std::exception& error) {
        store.clear();  // nothing stays open that nobody serves
        notify_status(fmt::format("Failed: {}", error.what()));
        throw;
    }
}

}  // namespace echo_server
