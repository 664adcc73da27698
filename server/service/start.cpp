// SPDX-License-Identifier: BSD-2-Clause
#include "service/start.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/os.h"
#include "base/privileges.h"
#include "base/systemd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/instances.h"
#include "echo/server.h"
#include "net/address.h"
#include "net/sockets.h"
#include "service/lifecycle.h"
#include "service/ports.h"
#include "service/replacement.h"

using asio::ip::tcp;

namespace echo_server {
namespace {

// In the descriptor store a number follows, which is never used again: so the names of two processes differ.
constexpr std::string_view link_prefix = "link-";
constexpr std::string_view listener_prefix = "listener-";

tcp::endpoint listen_address(const Options& options) {
    return options.listen.value_or(parse_endpoint(default_listen_address));
}

bool is_usable(const DescriptorStore::Entry& stored, const tcp::endpoint& wanted) {
    if (!stored.name.starts_with(listener_prefix) || !is_listening(stored.fd.get())) return false;
    const auto bound = local_endpoint(stored.fd.get());
    return unmapped(bound.address()) == unmapped(wanted.address()) &&
           (wanted.port() == 0 || wanted.port() == bound.port()) && !is_of_another_netns(stored.fd);
}

void check_listen(const Options& options, const Replacement& replacement) {
    if (!options.listen || !replacement.listener) return;
    const auto bound = to_string(local_endpoint(replacement.listener.get()));
    if (to_string(*options.listen) == bound) return;
    throw std::runtime_error(fmt::format(
        "--listen {}: the new server takes the socket of the running one, which is bound to {}: leave out --listen",
        to_string(*options.listen), bound));
}

// The socket of the running server, or of the previous process of the service; otherwise a new one.
Fd find_listener(const Options& options, Replacement& replacement, DescriptorStore& store) {
    check_listen(options, replacement);
    if (replacement.listener) return adopt_listener(std::move(replacement.listener));
    const auto wanted = listen_address(options);
    for (auto& stored : store.stored())
        if (is_usable(stored, wanted)) return adopt_listener(std::move(stored.fd));
    store.clear();  // an unused socket may have an address that overlaps
    return open_listener(wanted);
}

std::size_t count_links(DescriptorStore& store) {
    return static_cast<std::size_t>(
        std::ranges::count_if(store.stored(), [](const auto& entry) { return entry.name.starts_with(link_prefix); }));
}

echo_instance identity_of(EchoServer& server, int replaced_event) {
    echo_instance identity{};
    identity.netns = inode_of_namespace("net");
    identity.pid_namespace = inode_of_namespace("pid");
    identity.started = static_cast<__u64>(time_of(CLOCK_BOOTTIME).count());
    identity.started_wall = static_cast<__u64>(time_of(CLOCK_REALTIME).count());
    identity.process_start = start_of_this_process();
    identity.max_connections = server.max_connections();
    identity.listener = server.listener();
    identity.replaced_event = replaced_event;
    constexpr std::string_view version = ECHO_SERVER_VERSION;
    version.copy(identity.version, sizeof(identity.version) - 1);
    identity.pid = static_cast<__u32>(::getpid());
    return identity;
}

void warn_of_addresses(const Options& options) {
    for (const auto& prefix : without_local_address(options.addresses))
        log_warning(
            "no local address is in {0}: no client can connect there until this host has such an address, or takes all "
            "of them by 'ip route add local {0} dev lo'",
            to_string(prefix));
}

// Warns of what the server's user will not be able to do.
void warn_of_lost_rights(const Options& options, const User& user, bool may_use_maps, bool kept_cap_bpf) {
    if (options.pin && (kept_cap_bpf || !may_use_maps))
        log_warning("user {} can't use the pins: that needs root (CAP_BPF), or Linux 5.19", user.name);
    if (!may_use_maps)
        log_warning("{}no port will be closed for a program that begins to listen there: {}",
                    options.ports_file ? "SIGHUP will fail, and " : "", why_maps_are_refused);
}

// The last step that can fail, because it replaces the pins of the running server.
void rename_pins(Pins& pins, const Options& options) {
    if (pins.rename() && !options.replace)
        log_warning("pins of another echo-server in {} were replaced; if it still runs, its user has lost them",
                    *options.pin);
}

void let_go(const Replacement& replacement, Dispatcher& dispatcher) {
    if (replacement.servers.empty()) return;
    complete(replacement);
    // The old process has accepted the connections that this program steered until now: they would look like clients
    // that never connected.
    dispatcher.reset_port_stats();
}

// The link keeps the program attached, and the listener keeps the backlog, while this process drains and the next one
// starts.
void keep(DescriptorStore& store, const Link& link, const echo_instance& identity) {
    store.replace({{fmt::format("{}{}", link_prefix, identity.started), link.get()},
                   {fmt::format("{}{:x}", listener_prefix, socket_cookie(identity.listener)), identity.listener}});
}

// One line in the journal, without commands: there systemctl is used.
void announce(const Options& options, const User& user, const std::string& open, const echo_instance& identity,
              const Replacement& replacement, std::string_view sudo, bool kept_cap_bpf) {
    const auto bound = to_string(local_endpoint(identity.listener));
    if (logs_to_journal())
        return log_line("version {}, {}; socket {}, user {}", ECHO_SERVER_VERSION, open, bound, user.name);
    log_line("echo-server {}: {}", ECHO_SERVER_VERSION, open);
    log_line("  socket     {}, for all ports (sk:{:x} in 'ss -tlne')", bound, socket_cookie(identity.listener));
    log_line("  namespace  {} (netns_ino in 'bpftool link')", identity.netns);
    std::vector<std::string> prefixes;
    for (const auto& prefix : options.addresses) prefixes.push_back(to_string(prefix));
    if (!prefixes.empty()) log_line("  addresses  {}", fmt::join(prefixes, ", "));
    log_line("  user       {}, {}", user.name, kept_cap_bpf ? "with only CAP_BPF" : "without any capability");
    if (options.pin) log_line("  pinned     {}/echo_ports, echo_socket", *options.pin);
    std::vector<pid_t> drains;
    for (const auto& server : replacement.servers) drains.push_back(server.pid);
    if (!drains.empty())
        log_line("  replaces   process {}, which drain{}", fmt::join(drains, ", "), drains.size() == 1 ? "s" : "");
    // Where the log of a container is read, PID 1 is another process.
    const auto pid = ::getpid() == 1 ? "" : fmt::format(" {}", ::getpid());
    if (options.ports_file)
        log_line("  reload     edit {}, then {}echo-server reload{}", *options.ports_file, sudo, pid);
    log_line("  stop       Ctrl-C, or {}", pid.empty() ? "send SIGTERM" : fmt::format("{}kill{}", sudo, pid));
}

// This can hang with the file system of the ports file.
PortPlan plan_first_ports(const Options& options, int listener, const std::vector<Instance>& neighbours) {
    const StopsStart stops_start;
    auto plan = plan_ports(options, socket_cookie(listener));
    check_neighbours(neighbours, plan.wanted(), options.addresses);
    warn_of_addresses(options);
    return plan;
}

void serve(const Options& options, DescriptorStore& store) {
    const std::string_view sudo = ::geteuid() == 0 ? "sudo " : "";
    const User user = find_user(options.user);  // can hang with a directory server: a signal ends the process
    block_signals({SIGINT, SIGTERM});
    const StartTerminal terminal;
    become(user);

    // Destructors run in reverse order, also if a step fails: ports close before the socket does.
    set_libbpf_verbose(options.verbose);
    const auto dispatcher = std::make_shared<Dispatcher>(options.addresses, options.threads);
    auto replacement = options.replace ? prepare_replacement() : Replacement();
    const auto neighbours = options.replace ? std::vector<Instance>() : find_neighbours(listen_address(options).port());
    EchoServer server(find_listener(options, replacement, store), dispatcher->counters(), dispatcher->port_stats(),
                      options.idle_timeout, options.verbose);
    dispatcher->set_listener(server.listener());
    const auto gate = std::make_shared<Gate>();
    Lifecycle lifecycle(options.drain_timeout, server, *gate, store);
    const PortPlan plan = plan_first_ports(options, server.listener(), neighbours);
    const auto open = plan.describe(true);
    Pins pins;
    if (options.pin) pins.add(*options.pin, *dispatcher);
    server.set_max_connections(connection_limit(options.max_connections));

    // Open the ports. In a replacement the new program wins; the old process accepts for both until let_go().
    OpenPorts ports(options, dispatcher, socket_cookie(server.listener()));
    ports.set(plan);
    const auto identity = identity_of(server, lifecycle.replaced_event());
    auto self = dispatcher->publish(identity);
    gate->link = dispatcher->attach();
    check_alone(self, plan.wanted(), options.addresses, replacement, count_links(store));

    const bool kept_cap_bpf = drop_capabilities([&] { return !dispatcher->may_use_maps(); });
    server.start_threads();  // a thread has capabilities of its own
    lifecycle.begin();
    Housekeeper housekeeper({options, std::move(ports), user.uid, terminal, dispatcher, gate, server.listener(),
                             std::move(self), server.io()});
    start_is_complete();
    rename_pins(pins, options);
    warn_of_lost_rights(options, user, dispatcher->may_use_maps(), kept_cap_bpf);

    // From here on nothing can fail, or hang with a file system.
    let_go(replacement, *dispatcher);
    keep(store, gate->link, identity);
    notify("READY=1", open);
    announce(options, user, open, identity, replacement, sudo, kept_cap_bpf);
    housekeeper.begin();

    server.run();
    lifecycle.end();
}

// The user of the running server, perhaps from DynamicUser= in its unit; otherwise the user that a new one would
// become.
User find_user_of(const std::optional<Instance>& server, const Options& options) {
    if (server && !options.user && in_this_pid_namespace(server->identity))
        if (const auto user = user_of(static_cast<pid_t>(server->identity.pid))) return *user;
    return find_user(options.user);
}

}  // namespace

void serve(const Options& options) {
    DescriptorStore store;
    try {
        serve(options, store);
    } catch (const std::exception& error) {
        store.clear();  // nothing may stay open without a server
        notify("", fmt::format("Failed: {}", error.what()));
        throw;
    }
}

// Not serve() with an early end: it must not bind the socket of the running server, and must work without root.
void check_start(const Options& options) {
    if (::geteuid() != 0)
        log_warning("without root, this checks neither for other echo-servers nor the capabilities of the start");
    auto others = options.replace ? std::vector<Instance>() : running_servers(false);
    const auto running = take_predecessor(others, listen_address(options).port());
    become(find_user_of(running, options));
    const auto replacement = options.replace ? prepare_replacement() : Replacement();
    check_listen(options, replacement);
    const auto plan =
        plan_ports(options, running ? running->listener_cookie() : socket_cookie(replacement.listener.get()));
    check_neighbours(others, plan.wanted(), options.addresses);
    if (!running && !replacement.listener) check_address(listen_address(options));
    if (options.pin) Pins::check_folder(*options.pin);
    connection_limit(options.max_connections);
    warn_of_addresses(options);
    log_line("nothing is wrong; {} would have {}{}",
             running ? "a restart or a reload of the running server" : "a start", plan.describe(true),
             running ? "; another start would be refused" : "");
}

}  // namespace echo_server
