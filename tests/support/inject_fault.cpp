// SPDX-License-Identifier: BSD-2-Clause
#include "support/inject_fault.h"

#include <fmt/format.h>

#include <cstdlib>

#include "support/server.h"

namespace echo_server {

namespace {

// The child can't fail the test, so it aborts.
void set(const char* variable, const std::string& value) {
    if (::setenv(variable, value.c_str(), 1) != 0) std::abort();
}

void inject(const char* fault, const std::string& value) {
    set(fault, value);
    set("LD_PRELOAD", faults_library());
    set("ASAN_OPTIONS", "verify_asan_link_order=0");
}

}  // namespace

void fail_bpf(bpf_cmd command, after first) {
    inject("BPF_FAULT", fmt::format("{}:{}", static_cast<int>(command), first.calls));
}
void fail_bpf(bpf_cmd command, const std::string& path) {
    inject("BPF_FAULT", fmt::format("{}:{}", static_cast<int>(command), path));
}
void fail_accept(const std::string& error) { inject("ACCEPT_FAULT", error); }
void fail_epoll(const std::string& error) { inject("EPOLL_FAULT", error); }
void fail_splice(const std::string& calls) { inject("SPLICE_FAULT", calls); }
void fail_memory(const std::string& path) { inject("MEMORY_FAULT", path); }
void jump_wall_clock() { inject("CLOCK_FAULT", "1"); }
void append_while_reading(const std::string& path) { inject("READ_FAULT", path); }
void hang_at(const std::string& path) {
    inject("HANG_FAULT", path);
    // At the end the leak check would wait for every thread to stop, and a thread that hangs in the kernel does not.
    set("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0");
}

void hang_for_an_hour_at(const std::string& path) {
    set("HANG_HOUR", "1");
    hang_at(path);
}

}  // namespace echo_server
