// SPDX-License-Identifier: BSD-2-Clause
#include "support/netns.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "support/client.h"
#include "support/process.h"

namespace echo_server {

namespace {

Fd current() {
    Fd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    REQUIRE_MESSAGE(fd, "opening the thread's network namespace");
    return fd;
}

}  // namespace

Netns::Netns() {
    const Fd before = current();
    REQUIRE_MESSAGE(::unshare(CLONE_NEWNET) == 0, "making a network namespace: system tests run as root");
    fd_ = current();
    REQUIRE(::setns(before.get(), CLONE_NEWNET) == 0);
    run_ok(*this, {"ip", "link", "set", "lo", "up"});
}

std::string Netns::path() const { return fmt::format("/proc/{}/fd/{}", ::getpid(), fd_.get()); }

unsigned long Netns::inode() const {
    struct stat status{};
    REQUIRE(::fstat(fd_.get(), &status) == 0);
    return status.st_ino;
}

Netns::Entered::Entered(const Netns& netns) : before_(current()) { REQUIRE(::setns(netns.fd(), CLONE_NEWNET) == 0); }

Netns::Entered::~Entered() {
    if (::setns(before_.get(), CLONE_NEWNET) != 0) std::abort();
}

void set_sysctl(const Netns& netns, const std::string& name, const std::string& value) {
    const Netns::Entered entered(netns);
    std::ofstream file("/proc/sys/" + name);
    file << value;
    REQUIRE_MESSAGE(file.flush(), name);
}

Network::Network() {
    run_ok(host, {"ip", "link", "add", "to-vm", "type", "veth", "peer", "name", "to-host", "netns", vm.path()});
    const auto configure = [](const Netns& netns, const std::string& device, const std::string& ip4,
                              const std::string& ip6) {
        run_ok(netns, {"ip", "address", "add", ip4 + "/24", "dev", device});
        // Without nodad nobody can use the address before duplicate address detection ends.
        run_ok(netns, {"ip", "address", "add", ip6 + "/64", "dev", device, "nodad"});
        run_ok(netns, {"ip", "link", "set", device, "up"});
    };
    configure(host, "to-vm", host_ip4, host_ip6);
    configure(vm, "to-host", vm_ip4, vm_ip6);
    // Many short connections would use up the ports: so each port is free again after a second, not a minute.
    set_sysctl(host, "net/ipv4/tcp_tw_reuse", "1");
    // The kernel notices a new cable after a while, and loses packets until then.
    for (const std::string address : {vm_ip4, vm_ip6})
        REQUIRE(eventually([&] { return try_connect(host, address, 1) == ECONNREFUSED; }));
}

}  // namespace echo_server
