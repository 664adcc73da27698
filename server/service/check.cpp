// SPDX-License-Identifier: BSD-2-Clause
#include "service/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/privileges.h"
#include "base/systemd.h"
#include "base/text.h"
#include "dispatch/pins.h"
#include "dispatch/port_map.h"
#include "dispatch/running_servers.h"
#include "net/address.h"
#include "net/listener.h"
#include "net/socket_diag.h"
#include "service/port_plan.h"

namespace echo_server {
namespace {

// The server that serves; nothing if there is none, or if this process may not know.
std::optional<RunningServer> find_serving() {
    try {
        for (auto& server : find_running_servers())
            if (server.attached() && server.identity && !has_ended(*server.identity)) return std::move(server);
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::operation_not_permitted) throw;
    }
    return {};
}

// The running server has the address already, and a new one would get its socket.
bool has_address(std::uint64_t listener, const asio::ip::tcp::endpoint& address) {
    return std::ranges::any_of(listening_sockets(), [&](const ListeningSocket& socket) {
        return socket.cookie == listener && to_string(socket.local) == to_string(address);
    });
}

// The user that the server has become, perhaps by DynamicUser= in its unit; without a server, the user that it would be.
User find_user_of(const std::optional<RunningServer>& serving, const Options& options) {
    if (serving && !options.user && in_this_pid_namespace(*serving->identity))
        if (const auto user = user_of(static_cast<pid_t>(serving->identity->pid))) return *user;
    return find_user(options.user);
}

void check(const Options& options, const std::optional<RunningServer>& serving) {
    const auto own_listener = serving ? serving->listener_cookie() : 0;
    const User user = find_user_of(serving, options);
    const auto plan = plan_ports(options, user, {}, own_listener);
    for (const auto& warning : plan.warnings) log_warning(warning);
    if (const auto why = explain_unreadable(options, user); !why.empty()) throw std::runtime_error(why);
    const auto address = options.listen.value_or(parse_endpoint(default_listen_address));
    if (own_listener == 0 || !has_address(own_listener, address)) check_address(address);
    if (options.pin) Pins::check_folder(*options.pin);
    log_line("nothing is wrong; {}: {}", plural(plan.ports.size(), "TCP port"), plan.ports.to_string(ranges_in_a_line));
}

// systemd runs ExecReload= with the PID of the server, whose status line it is.
void tell_systemd(const std::optional<RunningServer>& serving, const std::string& failure) {
    if (std::getenv("MAINPID") == nullptr) return;
    const auto* ports = serving ? serving->map("echo_ports") : nullptr;
    notify_last_status(ports != nullptr ? describe_status(read_ports(ports->fd.get()), failure)
                                        : fmt::format("The last reload failed: {}", failure));
}

}  // namespace

bool check_start(const Options& options) {
    const auto serving = find_serving();
    try {
        check(options, serving);
        return true;
    } catch (const std::runtime_error& error) {
        log_error(error.what());
        tell_systemd(serving, error.what());
        return false;
    }
}

}  // namespace echo_server
