// SPDX-License-Identifier: BSD-2-Clause
#include "base/systemd.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <ctime>
#include <stdexcept>

namespace echo_server {

void notify_ready(const std::string& status) { ::sd_notify(0, fmt::format("READY=1\nSTATUS={}", status).c_str()); }

void notify_reloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    ::sd_notify(0, fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1000).c_str());
}

void notify_ready_again() { ::sd_notify(0, "READY=1"); }

void notify_stopping(const std::string& status) {
    ::sd_notify(0, fmt::format("STOPPING=1\nSTATUS={}", status).c_str());
}

bool is_socket_passed() { return ::sd_listen_fds(0) > 0; }

std::optional<Fd> passed_socket() {
    const int count = ::sd_listen_fds(1);
    if (count <= 0) return {};
    if (count > 1)
        throw std::runtime_error(
            fmt::format("taking the socket passed by systemd: there are {}; let the socket unit have one "
                        "ListenStream",
                        count));
    return Fd(SD_LISTEN_FDS_START);
}

}  // namespace echo_server
