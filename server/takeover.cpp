// SPDX-License-Identifier: BSD-2-Clause
#include "takeover.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "log.h"

namespace {

[[noreturn]] void fail(pid_t pid, std::string_view why) {
    throw std::runtime_error(fmt::format("taking over from process {}: {}; it goes on as before", pid, why));
}

[[noreturn]] void fail(pid_t pid, std::string_view what, int error) {
    const auto* hint = error == EPERM ? " (it takes root, or the same user and no ptrace restriction)" : "";
    fail(pid, fmt::format("{}: {}{}", what, std::generic_category().message(error), hint));
}

// glibc 2.36 has wrappers for these two, older ones have none.
Fd open_process(pid_t pid) { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

Fd duplicate(const Fd& process, int fd) {
    return Fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
}

std::uint64_t cookie_of(const Fd& socket) {
    std::uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);
    ::getsockopt(socket.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size);
    return cookie;
}

bool is_eventfd(const Fd& fd) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", fd.get()), error);
    return target == "anon_inode:[eventfd]";
}

// The one instance that serves here, if there is one.
std::optional<Instance> running_instance(bool needed) {
    std::vector<Instance> instances;
    try {
        instances = find_instances();
    } catch (const std::system_error& error) {
        if (error.code() != std::errc::operation_not_permitted) throw;
        if (needed) throw std::runtime_error("looking for the echo-server to replace: it takes root; start with sudo");
        if (other_programs_attached())
            log_problem(
                "another sk_lookup program is attached here; only root could tell whether it is an "
                "echo-server's. This one comes last and wins where both have a port");
        return {};
    }
    instances.erase(std::remove_if(instances.begin(), instances.end(), [](const auto& one) { return !one.attached; }),
                    instances.end());
    if (instances.empty()) return {};
    if (instances.size() > 1 && needed)
        throw std::runtime_error(
            "looking for the echo-server to replace: several run here; stop all but one first "
            "('echo-server status' shows them)");
    return std::move(instances.front());
}

}  // namespace

Takeover::Takeover(const Instance& running) : pid_(running.identity ? static_cast<pid_t>(running.identity->pid) : 0) {
    if (pid_ == 0)
        throw std::runtime_error(
            fmt::format("taking over from BPF program {}: it is of a version that can't be replaced: stop it first",
                        running.program));
    const Fd process = open_process(pid_);
    if (!process) fail(pid_, "opening it", errno);
    listener_ = duplicate(process, running.identity->listener);
    if (!listener_) fail(pid_, "duplicating its listening socket", errno);
    // What the map says of the process was written by a process without privileges.
    if (const auto cookie = cookie_of(listener_); cookie == 0 || cookie != running.listener_cookie())
        fail(pid_, "it does not have the socket in echo_socket; does it run in another PID namespace?");
    replaced_ = duplicate(process, running.identity->replaced);
    if (!replaced_) fail(pid_, "duplicating its eventfd", errno);
    if (!is_eventfd(replaced_)) fail(pid_, "it has no eventfd to be told by");
}

void Takeover::complete() {
    if (::eventfd_write(replaced_.get(), 1) != 0) fail(pid_, "telling it to drain", errno);
}

std::optional<Takeover> prepare_takeover(bool replace) {
    const auto running = running_instance(replace);
    if (!running) return {};
    if (replace) return Takeover(*running);
    const auto who = running->identity ? fmt::format("process {}", running->identity->pid)
                                       : fmt::format("BPF program {}", running->program);
    throw std::runtime_error(
        fmt::format("an echo-server runs in this network namespace already ({}): --replace takes "
                    "over from it without losing a connection, or stop it first",
                    who));
}
