// SPDX-License-Identifier: BSD-2-Clause
#include "process_usage.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>

#include "base/text.h"

namespace echo_server {

namespace {

using std::chrono::nanoseconds;

struct Stat {
    pid_t parent = 0;
    nanoseconds waited_for{};  // the time of descendants that ended, once their parents waited for them
};

// Reads /proc/PID/stat; see proc_pid_stat(5). The name in brackets may hold anything.
bool read_stat(pid_t pid, Stat& stat) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    std::string line;
    if (!std::getline(file, line)) return false;
    std::istringstream fields(line.substr(line.rfind(')') + 1));
    std::string skipped;
    std::uint64_t user = 0;
    std::uint64_t system = 0;
    fields >> skipped >> stat.parent;
    for (int field = 5; field <= 15; ++field) fields >> skipped;
    fields >> user >> system;
    stat.waited_for = nanoseconds(std::chrono::seconds(user + system)) / ::sysconf(_SC_CLK_TCK);
    return true;
}

// The time of the threads that still run.
nanoseconds own_time(pid_t pid) {
    std::uint64_t total = 0;
    std::error_code gone;
    for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), gone)) {
        std::ifstream file(thread.path() / "schedstat");
        std::uint64_t time = 0;
        if (file >> time) total += time;
    }
    return nanoseconds(total);
}

}  // namespace

nanoseconds cpu_time(pid_t pid) {
    std::map<pid_t, Stat> processes;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        Stat stat;
        const auto number = parse_number<pid_t>(entry.path().filename().string());
        if (number && read_stat(*number, stat)) processes[*number] = stat;
    }
    if (!processes.contains(pid)) throw std::runtime_error(fmt::format("there is no process {}", pid));
    nanoseconds total{};
    for (const auto& [process, stat] : processes) {
        auto ancestor = process;
        while (ancestor != pid && processes.contains(ancestor)) ancestor = processes[ancestor].parent;
        if (ancestor == pid) total += own_time(process) + stat.waited_for;
    }
    return total;
}

std::size_t resident_memory(pid_t pid) {
    // Not statm: the kernel counts for each CPU apart, and does not add up the last 100 kB or so.
    std::ifstream file(fmt::format("/proc/{}/smaps_rollup", pid));
    std::string word;
    std::size_t kib = 0;
    while (file >> word)
        if (word == "Rss:" && file >> kib) return kib * 1024;
    throw std::runtime_error(fmt::format("there is no process {}", pid));
}

}  // namespace echo_server
