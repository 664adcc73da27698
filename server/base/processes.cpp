// SPDX-License-Identifier: BSD-2-Clause
#include "base/processes.h"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>

namespace echo_server {
namespace {

std::uint64_t start_in(const std::string& path) {
    std::ifstream file(path);
    std::string text;
    std::getline(file, text, '\0');
    const auto end_of_name = text.rfind(')');  // the name can have blanks, brackets and newlines
    if (end_of_name == std::string::npos) return 0;
    std::istringstream fields(text.substr(end_of_name + 1));
    std::string skipped;
    for (int field = 3; field < 22; ++field) fields >> skipped;
    std::uint64_t start = 0;
    if (!(fields >> start)) return 0;
    return start;
}

}  // namespace

std::uint64_t start_of_this_process() { return start_in("/proc/self/stat"); }

Fd open_process(pid_t pid, std::uint64_t start) {
    // glibc has a wrapper since 2.36 alone.
    Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process || start == 0 || !proc_is_ours()) return process;
    // Read after the process was opened: if the start is right now, the PID was its own when it was opened.
    const auto found = start_in(fmt::format("/proc/{}/stat", pid));
    if (found == 0 || found == start) return process;
    errno = ESRCH;
    return {};
}

bool proc_is_ours() {
    std::error_code error;
    return std::filesystem::read_symlink("/proc/self", error) == std::to_string(::getpid());
}

}  // namespace echo_server
