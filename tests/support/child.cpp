// SPDX-License-Identifier: BSD-2-Clause
#include "support/child.h"

#include <doctest/doctest.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <system_error>
#include <utility>

namespace echo_server {

namespace {

void require(bool done) {
    if (!done) std::abort();
}

}  // namespace

bool kernel_before(int major, int minor) {
    utsname kernel{};
    std::pair<int, int> version;
    require(::uname(&kernel) == 0);
    require(std::sscanf(kernel.release, "%d.%d", &version.first, &version.second) == 2);
    return version < std::pair(major, minor);
}

void become_ordinary(std::initializer_list<int> capabilities) {
    require(::prctl(PR_SET_KEEPCAPS, 1) == 0);
    require(::setgroups(0, nullptr) == 0);
    require(::setresgid(ordinary_user, ordinary_user, ordinary_user) == 0);
    require(::setresuid(ordinary_user, ordinary_user, ordinary_user) == 0);
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, 2> data{};
    for (const int capability : capabilities) {
        auto& half = data.at(static_cast<std::size_t>(capability) / 32);
        const auto bit = 1U << static_cast<unsigned>(capability % 32);
        half.permitted |= bit;
        half.effective |= bit;
        half.inheritable |= bit;
    }
    require(::syscall(SYS_capset, &header, data.data()) == 0);
    for (const int capability : capabilities)
        require(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) == 0);
}

void keep_capabilities(std::initializer_list<int> kept) {
    // Root regains its capabilities at exec, but no more than the bounding set.
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability)
        if (std::ranges::find(kept, capability) == kept.end()) require(::prctl(PR_CAPBSET_DROP, capability) == 0);
}

namespace {

void filter_system_call(int number, int first_argument, unsigned action) {
    const auto load = [](std::size_t offset) {
        return sock_filter(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(offset)));
    };
    const bool any = first_argument < 0;
    // An argument has 64 bits, a filter loads 32.
    const std::size_t lower_half = std::endian::native == std::endian::little ? 0 : 4;
    std::array filter{
        load(offsetof(seccomp_data, nr)),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, 3),
        load(offsetof(seccomp_data, args) + lower_half),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, any ? 0 : static_cast<unsigned>(first_argument), 0, 1),
        sock_filter BPF_STMT(BPF_RET | BPF_K, action),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (!any) filter[3].code = BPF_JMP | BPF_JEQ | BPF_K;
    const sock_fprog program{.len = filter.size(), .filter = filter.data()};
    require(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

}  // namespace

void refuse_system_call(int number, int first_argument, int error) {
    filter_system_call(number, first_argument, SECCOMP_RET_ERRNO | static_cast<unsigned>(error));
}

void kill_at_system_call(int number, int first_argument) {
    filter_system_call(number, first_argument, SECCOMP_RET_KILL_PROCESS);
}

void limit_locked_memory(unsigned long max) {
    const rlimit limit{.rlim_cur = max, .rlim_max = max};
    require(::setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
}

void limit_descriptors(unsigned long max) {
    const rlimit limit{.rlim_cur = max, .rlim_max = max};
    require(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void limit_descriptors_softly(unsigned long max) {
    rlimit limit{};
    require(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = max;
    require(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void close_standard_streams(unsigned streams) {
    for (int fd = 0; fd <= 2; ++fd)
        if ((streams >> static_cast<unsigned>(fd) & 1U) != 0) require(::close(fd) == 0);
}

void go_on_in_child() {
    const auto child = ::fork();
    require(child >= 0);
    if (child > 0) {
        int status = 0;
        ::waitpid(child, &status, 0);
        // Not _exit(): ThreadSanitizer's would write the test's buffered output a second time.
        std::_Exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
    }
    require(::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

void at_each_step(const Netns& netns, const Command& command, int error, const std::vector<StartStep>& steps,
                  const std::function<void(StepEnd)>& check) {
    for (const auto& step : steps) {
        CAPTURE(step.name);
        const auto failed = run(netns, command, [&] { refuse_system_call(step.number, step.first_argument, error); });
        CHECK(failed.code == 1);
        CHECK(failed.output.find(std::generic_category().message(error)) != std::string::npos);
        check(StepEnd::failed);
    }
    for (const auto& step : steps) {
        CAPTURE(step.name);
        const auto killed = run(netns, command, [&] { kill_at_system_call(step.number, step.first_argument); });
        CHECK(killed.code == -SIGSYS);
        check(StepEnd::killed);
    }
}

}  // namespace echo_server
