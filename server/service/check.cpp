// SPDX-License-Identifier: BSD-2-Clause
#include "service/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/descriptor_limit.h"
#include "base/log.h"
#include "base/privileges.h"
#include "base/text.h"
#include "dispatch/pins.h"
#include "dispatch/running_servers.h"
#include "net/address.h"
#include "net/listener.h"
#include "net/socket_diag.h"
#include "service/announcement.h"
#include "service/port_plan.h"
#include "service/takeover.h"

namespace echo_server {
namespace {

// The running server; nothing if there is none, or if this process may not know.
std::optional<RunningServer> find_running_server() {
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

// Without --listen, a server that runs has its socket, perhaps from a socket unit.
void check_listen_address(const Options& options, std::uint64_t own_listener) {
    if (!options.listen && own_listener != 0) return;
    const auto wanted = options.listen.value_or(parse_endpoint(default_listen_address));
    if (own_listener == 0 || !has_port(own_listener, wanted)) check_address(wanted);
}

// The user that the running server has become, perhaps by DynamicUser= in its unit; else the user that it would become.
User find_user_of(const std::optional<RunningServer>& running, const Options& options) {
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

}  // namespace echo_server
