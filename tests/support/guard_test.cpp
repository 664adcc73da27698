// SPDX-License-Identifier: BSD-2-Clause
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <string>

#include "base/os.h"
#include "support/process.h"

namespace echo_server {

namespace {

constexpr auto killed = "guard: this test waits until it is killed";

}  // namespace

TEST_CASE(killed* doctest::skip()) {
    const Netns netns;
    const Process child(netns, {"setpriv", "--reuid=65534", "--clear-groups", "sleep", "1000"});
    std::cout << "child " << child.pid() << '\n' << std::flush;
    ::pause();
}

TEST_CASE("guard: a killed test leaves no process behind, not even of another user") {
    const Netns netns;
    Process tests(netns, {"/proc/self/exe", "--no-skip", "--test-case=" + std::string(killed)});
    const auto line = tests.wait_for("child ");
    const auto pid = std::stoi(line.substr(line.rfind(' ')));
    const Fd child(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    REQUIRE(child);
    tests.signal(SIGKILL);
    pollfd ended{child.get(), POLLIN, 0};
    CHECK(::poll(&ended, 1, 30'000) == 1);
}

}  // namespace echo_server
