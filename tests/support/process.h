// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "support/netns.h"

namespace echo_server {

using Command = std::vector<std::string>;

/// More time than any expected event needs, on a slow machine and under a sanitizer.
constexpr std::chrono::seconds time_limit{60};

/// Calls `condition` until it is true; returns whether it became true within `limit`.
bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit = time_limit);

/// The number of times that `piece` is in `text`.
std::size_t count(std::string_view text, std::string_view piece);

/// A program that runs in a network namespace, with standard output and error in one stream. The destructor kills it.
class Process {
 public:
    /// The new process calls `in_child` just before it becomes `command`.
    Process(const Netns& netns, const Command& command, const std::function<void()>& in_child = {});
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    [[nodiscard]] pid_t pid() const { return pid_; }
    /// All its output so far.
    const std::string& output();
    /// The next line of its output that no earlier call returned. Fails the test if the process ends before, or after
    /// the time limit.
    std::string next_line();
    /// The next line that contains `text`.
    std::string wait_for(std::string_view text);
    void signal(int number) const;
    /// Stops it by SIGSTOP while it waits for events, and waits until it has stopped. SIGCONT lets it go on: then it
    /// sees first all that has happened meanwhile.
    void freeze() const;
    /// Waits for its end; returns its exit code, or minus the signal that killed it. Afterwards output() is complete.
    int wait();
    /// The most memory that it had at a time, in kB, once wait() has returned.
    [[nodiscard]] long peak_kb() const { return peak_kb_; }
    /// User and system time used so far.
    [[nodiscard]] std::chrono::milliseconds cpu_time() const;
    /// The number in kB behind `name` ("VmRSS") in /proc/PID/status.
    [[nodiscard]] long status_kb(std::string_view name) const;
    /// Bytes read by read(2) and its like, so far.
    [[nodiscard]] long bytes_read() const;

 private:
    bool read_some(std::chrono::milliseconds timeout);

    pid_t pid_ = -1;
    long peak_kb_ = 0;
    Fd out_;
    std::string output_;
    std::size_t seen_ = 0;
};

/// True once the process has ended, even if nobody reads its output.
bool ends(const Process& process);

/// True once the process does nothing for half a second. That may need a while: lost packets are sent again.
bool comes_to_rest(const Process& process);

/// The number of its open descriptors.
std::ptrdiff_t descriptors_of(const Process& process);

struct Result {
    int code;
    std::string output;
};

/// Runs `command` until it ends.
Result run(const Netns& netns, const Command& command, const std::function<void()>& in_child = {});

/// The same, and fails the test if the command fails; returns its output.
std::string run_ok(const Netns& netns, const Command& command);

}  // namespace echo_server
