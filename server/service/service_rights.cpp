// SPDX-License-Identifier: BSD-2-Clause
// What a service says at its start of that which its user can't do.
#include "base/log.h"
#include "service/service.h"

namespace echo_server {

void Service::warn_of_lost_rights(bool kept_cap_bpf) const {
    const bool may_update = dispatcher_.may_use_maps();
    if (options_.pin && pins_.replace_others() && !takeover_)
        log_problem("pins of another echo-server in {} were replaced; if it still runs, its user has lost them",
                    *options_.pin);
    if (options_.pin && !Pins::reachable(*options_.pin))
        log_problem("user {} can't enter {}: the pins are of no use there, and will be left", user_.name,
                    *options_.pin);
    else if (options_.pin && !pins_.removable())
        log_problem("user {} can't remove pins from {}: they will be left there", user_.name, *options_.pin);
    if (options_.pin && (kept_cap_bpf || !may_update))
        log_problem("user {} can't use the pins: that needs root (CAP_BPF), or Linux 5.19", user_.name);
    if (options_.ports_file && !may_update)
        log_problem(
            "SIGHUP will fail: on this kernel it needs CAP_BPF, and the server was started without: give it CAP_BPF "
            "(AmbientCapabilities= in a systemd unit)");
}

}  // namespace echo_server
