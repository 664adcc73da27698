// SPDX-License-Identifier: BSD-2-Clause
#include "service/service.h"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/descriptor_limit.h"
#include "base/log.h"
#include "base/namespaces.h"
#include "base/privileges.h"
#include "base/processes.h"
#include "base/signals.h"
#include "base/systemd.h"
#include "base/text.h"
#include "dispatch/dispatcher.h"
#include "dispatch/pins.h"
#include "echo/server.h"
#include "net/address.h"
#include "net/listener.h"
#include "service/announcement.h"
#include "service/lifecycle.h"
#include "service/port_plan.h"
#include "service/takeover.h"

namespace echo_server {
namespace {

// The socket of systemd, of the running server, or a new one.
Fd obtain_listener(const Options& options, std::optional<Takeover>& takeover) {
    auto passed = passed_socket();
    Fd taken = takeover ? takeover->take_listener() : Fd();
    if (taken && passed)
        throw std::runtime_error(
            "--replace: systemd has passed a socket, and the running server has another; leave out --replace, or start "
            "without the socket unit");
    if (!taken && !passed) return open_listener(options.listen.value_or(parse_endpoint(default_listen_address)));

    Fd listener = taken ? adopt_listener(std::move(taken), Origin::running_server)
                        : adopt_listener(std::move(*passed), Origin::systemd);
    const auto bound = to_string(local_endpoint(listener.get()));
    if (options.listen && to_string(*options.listen) != bound)
        throw std::runtime_error(fmt::format(
            "--listen {}: there is a socket already, from {}, and it is bound to {}; leave out --listen to use it",
            to_string(*options.listen), passed ? "systemd" : "the running server", bound));
    if (passed && serves_ip4_alone(listener))
        log_warning(
            "the socket is an IPv4 one: clients on IPv6 are refused; 'ListenStream=[::ffff:127.0.0.1]:7777' with "
            "'BindIPv6Only=both' in the socket unit serves both");
    return listener;
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

}  // namespace

void serve(const Options& options) {
    const bool by_root = ::geteuid() == 0;
    const User user = find_user(options.user);

    // Whatever was made last goes first, at the end and if a step fails: ports close before the socket does.
    set_libbpf_verbose(options.verbose);
    Dispatcher dispatcher(options.addresses, options.threads);
    auto takeover = prepare_takeover(options.replace);
    Lifecycle::Memory memory;
    EchoServer server(obtain_listener(options, takeover),
                      {.log_connections = options.verbose, .idle_timeout = options.idle_timeout},
                      dispatcher.counters());
    dispatcher.set_listener(server.listener());
    Lifecycle lifecycle(options, user, dispatcher, server, memory);
    const PortSet ports = lifecycle.plan_ports();
    warn_of_interfaces(server.listener());
    Pins pins;
    // echo_ports comes last: a start that is killed between the two leaves the user the echo_ports of the running
    // server.
    if (options.pin)
        pins.add(*options.pin, {{"echo_socket", dispatcher.socket_fd()}, {"echo_ports", dispatcher.ports_fd()}}, user);
    server.set_max_connections(connection_limit(options.max_connections));

    // Open the ports. In a replacement the new program wins, and both servers accept from the socket that they share.
    dispatcher.set_ports(ports);
    dispatcher.publish(identity_of(server, lifecycle.handover_event()));
    lifecycle.own(dispatcher.attach());
    check_alone(dispatcher.program_id(), takeover);

    // Give up root. Steps that can still fail come later, so that they do not fail with root's rights.
    pins.publish_as_root();
    const bool kept_cap_bpf = drop_privileges(user, [&] { return !dispatcher.may_use_maps(); });
    server.start_threads();  // a thread has privileges of its own
    lifecycle.begin();
    check_stop_signals();
    pins.publish();  // it replaces the pins of the running server, so not before all other steps are done
    warn_of_lost_rights(options, user, dispatcher, pins, kept_cap_bpf);

    // From here on nothing fails, nor hangs with a file system: let the running server go.
    if (takeover) takeover->complete();
    notify_ready(describe_open(ports));
    announce({options, user, ports, server.listener(), takeover, by_root, kept_cap_bpf});

    server.run();
    const auto open = server.open_connections();
    log_line(open == 0 ? "stopped" : fmt::format("stopped; {} cut off", plural(open, "connection")));
}

}  // namespace echo_server
