// SPDX-License-Identifier: BSD-2-Clause
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>

#include "support/skip.h"

int main(int argc, char** argv) {
    // The bpftool of the build: on Ubuntu, the first in PATH may be a script that finds no real one.
    const char* path = ::getenv("PATH");
    ::setenv("PATH", (BPFTOOL_FOLDER ":" + std::string(path != nullptr ? path : "")).c_str(), 1);

    // A test has thousands of clients, and a session's limit is often 1,024. A server sets its own limit.
    rlimit descriptors{};
    ::getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &descriptors);

    // Otherwise the end of a child can interrupt a call in any thread, and a client fails with EINTR: while fork(2)
    // blocks all signals, even a SIGCHLD without a handler is delivered.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    const int code = doctest::Context(argc, argv).run();
    if (echo_server::skipped_tests == 0) return code;
    std::cout << echo_server::skipped_tests << " of the passed tests were skipped: see 'skipped:' above\n";
    return code == 0 ? 77 : code;  // tests/CMakeLists.txt tells ctest what 77 means
}
