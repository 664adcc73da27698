// SPDX-License-Identifier: BSD-2-Clause
#include "service/announcement.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "base/namespaces.h"
#include "net/address.h"
#include "net/listener.h"
#include "net/routes.h"
#include "service/port_plan.h"

namespace echo_server {

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
    if (const auto& takeover = facts.takeover)
        log_line("  replaces   process {}, which drain{}", takeover->pids(), takeover->count() == 1 ? "s" : "");
    // Process 1 of a container is another process where its log is read.
    const bool of_container = pid == 1;
    if (options.ports_file)
        log_line("  reload     edit {}, then {}echo-server reload{}", *options.ports_file, sudo,
                 of_container ? "" : fmt::format(" {}", pid));
    log_line("  stop       Ctrl-C, or {}", of_container ? "send SIGTERM" : fmt::format("{}kill {}", sudo, pid));
}

// The program steers clients of every interface to the socket, and the kernel does not check the interface then.
void warn_of_interfaces(int listener) {
    if (const auto name = bound_interface(listener); !name.empty())
        return log_warning(
            "the socket is bound to the interface {} ('BindToDevice=' in the socket unit, or 'ip vrf exec'): "
            "clients that come by another get no answer",
            name);
    if (const auto warning = explain_vrf(); !warning.empty()) log_warning(warning);
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

}  // namespace echo_server
