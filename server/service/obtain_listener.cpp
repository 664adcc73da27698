// SPDX-License-Identifier: BSD-2-Clause
#include "service/obtain_listener.h"

#include <fmt/format.h>

#include <stdexcept>
#include <utility>

#include "base/log.h"
#include "net/address.h"
#include "net/listener.h"

namespace echo_server {
namespace {

using asio::ip::tcp;

bool is_bound_to(const Fd& socket, const tcp::endpoint& wanted) {
    const auto bound = local_endpoint(socket.get());
    return unmapped(bound.address()) == unmapped(wanted.address()) &&
           (wanted.port() == 0 || wanted.port() == bound.port());
}

// A socket that is bound to an interface is not used: perhaps the service is no longer started so ('ip vrf exec').
bool is_usable(const Fd& kept, const tcp::endpoint& wanted) {
    return why_not_a_listener(kept).empty() && is_bound_to(kept, wanted) && bound_interface(kept.get()).empty() &&
           !is_of_another_netns(kept);
}

Fd take_kept(DescriptorStore& store, const tcp::endpoint& wanted) {
    for (auto& kept : store.kept())
        if (is_usable(kept.fd, wanted)) return adopt_listener(std::move(kept.fd), Origin::descriptor_store);
    return {};
}

}  // namespace

Fd obtain_listener(const Options& options, std::optional<Fd> passed, std::optional<Takeover>& takeover,
                   DescriptorStore& store) {
    Fd taken = takeover ? takeover->take_listener() : Fd();
    if (taken && passed)
        throw std::runtime_error(
            "--replace: systemd has passed a socket, and the running server has another; leave out --replace, or start "
            "without the socket unit");
    if (!taken && !passed) {
        const auto wanted = options.listen.value_or(parse_endpoint(default_listen_address));
        if (Fd kept = take_kept(store, wanted)) return kept;
        // A socket that is not used may have an address that overlaps.
        store.empty();
        return open_listener(wanted);
    }

    Fd listener = taken ? adopt_listener(std::move(taken), Origin::running_server)
                        : adopt_listener(std::move(*passed), Origin::socket_unit);
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

}  // namespace echo_server
