// SPDX-License-Identifier: BSD-2-Clause
#include "service/service.h"

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

#include "base/clock.h"
#include "base/descriptor_limit.h"
#include "base/descriptor_store.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "base/privileges.h"
#include "base/processes.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "dispatch/dispatcher.h"
#include "dispatch/pins.h"
#include "echo/server.h"
#include "net/listener.h"
#include "service/announcement.h"
#include "service/lifecycle.h"
#include "service/obtain_listener.h"
#include "service/port_plan.h"
#include "service/takeover.h"

namespace echo_server {
namespace {

// The names in the descriptor store have numbers that never come again, so the entries of two processes differ.
constexpr std::string_view link_prefix = "link-";
constexpr std::string_view listener_prefix = "listener-";

bool is_of_store(const NamedFd& passed) {
    return passed.name.starts_with(link_prefix) || passed.name.starts_with(listener_prefix);
}

std::size_t count_links(const std::vector<NamedFd>& stored) {
    return static_cast<std::size_t>(
        std::ranges::count_if(stored, [](const NamedFd& fd) { return fd.name.starts_with(link_prefix); }));
}

// With the link, systemd keeps the program attached, and with the listener its backlog, while this process drains and
// the next one starts. systemd keeps the socket of a socket unit anyway.
std::vector<DescriptorStore::Entry> entries(std::uint32_t program, int link, int listener, bool from_socket_unit) {
    std::vector<DescriptorStore::Entry> entries{{fmt::format("{}{}", link_prefix, program), link}};
    if (!from_socket_unit)
        entries.push_back({fmt::format("{}{:x}", listener_prefix, socket_cookie(listener)), listener});
    return entries;
}

struct Passed {
    std::vector<NamedFd> sockets;  // of socket units
    std::vector<NamedFd> stored;   // of the descriptor store
};

Passed take_passed() {
    Passed passed;
    for (auto& descriptor : passed_descriptors())
        (is_of_store(descriptor) ? passed.stored : passed.sockets).push_back(std::move(descriptor));
    return passed;
}

std::optional<Fd> only(std::vector<NamedFd> sockets) {
    if (sockets.size() > 1)
        throw std::runtime_error(
            fmt::format("taking the socket passed by systemd: there are {}; let the socket unit have one ListenStream",
                        sockets.size()));
    if (sockets.empty()) return {};
    return std::move(sockets.front().fd);
}

echo_instance identity_of(EchoServer& server, int handover_event) {
    echo_instance identity{};
    identity.netns = CurrentNetns().inode;
    identity.pid_namespace = pid_namespace();
    identity.started = static_cast<__u64>(time_of(CLOCK_BOOTTIME).count());
    identity.started_wall = static_cast<__u64>(time_of(CLOCK_REALTIME).count());
    identity.process_start = start_of_this_process();
    identity.time_namespace = time_namespace();
    identity.max_connections = server.max_connections();
    identity.listener = server.listener();
    identity.handover_event = handover_event;
    constexpr std::string_view version = ECHO_SERVER_VERSION;
    version.copy(identity.version, sizeof(identity.version) - 1);
    identity.pid = static_cast<__u32>(::getpid());
    return identity;
}

void serve(const Options& options, std::optional<Fd> passed_socket, DescriptorStore& store) {
    check_descriptor_limit(options.threads, options.max_connections);
    const bool by_root = ::geteuid() == 0;
    const User user = find_user(options.user);

    // Whatever was made last goes first, at the end and if a step fails: ports close before the socket does.
    set_libbpf_verbose(options.verbose);
    Dispatcher dispatcher(options.addresses, options.threads);
    const bool from_socket_unit = passed_socket.has_value();
    auto takeover = prepare_takeover(options.replace, from_socket_unit);
    Lifecycle::Memory memory;
    EchoServer server(obtain_listener(options, std::move(passed_socket), takeover, store),
                      {.log_connections = options.verbose, .idle_timeout = options.idle_timeout}, dispatcher.counters(),
                      dispatcher.reached());
    dispatcher.set_listener(server.listener());
    Lifecycle lifecycle(options, user, dispatcher, server, store, memory);
    const PortSet ports = lifecycle.plan_ports();
    warn_of_interfaces(server.listener());
    warn_of_addresses(options.addresses);
    Pins pins;
    // echo_ports comes last: a start that is killed between the two leaves the user the echo_ports of the running
    // server.
    if (options.pin)
        pins.add(*options.pin, {{"echo_socket", dispatcher.socket_fd()}, {"echo_ports", dispatcher.ports_fd()}}, user);
    server.set_max_connections(connection_limit(options.max_connections));

    // Open the ports. In a replacement the new program wins, and both servers accept from the socket that they share.
    dispatcher.set_ports(ports);
    const auto identity = identity_of(server, lifecycle.handover_event());
    dispatcher.publish(identity);
    const int link = lifecycle.own(dispatcher.attach());
    const auto program = dispatcher.program_id();  // before Linux 5.19, nobody may ask without CAP_BPF
    check_alone(program, takeover, count_links(store.kept()));
    auto self = dispatcher.as_running_server(identity);

    // Give up root. Steps that can still fail come later, so that they do not fail with root's rights.
    pins.publish_as_root();
    const bool kept_cap_bpf = drop_privileges(user, [&] { return !dispatcher.may_use_maps(); });
    server.start_threads();  // a thread has privileges of its own
    lifecycle.begin(std::move(self));
    check_stop_signals();
    pins.publish();  // it replaces the pins of the running server, so not before all other steps are done
    warn_of_lost_rights(options, user, dispatcher, pins, kept_cap_bpf);

    // From here on nothing fails, nor hangs with a file system: let the running server go.
    if (takeover) {
        takeover->complete();
        // Since the program was attached, its lookups led to the old process: they would look like clients that never
        // connected.
        dispatcher.forget_reached();
    }
    store.replace(entries(program, link, server.listener(), from_socket_unit));
    notify_ready(describe_open(ports));
    announce({options, user, ports, server.listener(), takeover, by_root, kept_cap_bpf});

    server.run();
    lifecycle.end();
}

}  // namespace

void serve(const Options& options) {
    auto passed = take_passed();
    DescriptorStore store(std::move(passed.stored));
    try {
        serve(options, only(std::move(passed.sockets)), store);
    } catch (const StoppedAtStart&) {
        throw;  // a restart may have stopped it: the next process gets what is in the store
    } catch (const std::exception& error) {
        store.empty();  // nothing stays open that nobody serves
        notify_status(fmt::format("Failed: {}", error.what()));
        throw;
    }
}

}  // namespace echo_server
