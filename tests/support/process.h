// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "support/netns.h"

namespace echo_server {

using Command = std::vector<std::string>;

/// Longer than anything takes that is going to happen, on a slow machine and under a sanitizer.
constexpr std::chrono::seconds time_limit{60};

/// Calls `condition` until it is true, and tells whether that came within `limit`.
bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit = time_limit);

/// How often `piece` is in `text`.
std::size_t count(std::string_view text, std::string_view piece);

/// A program that runs in a network namespace; standard output and error come together. Killed with the object.
class Process {
 public:
    /// `in_child` is called in the new process just before it becomes `command`.
    Process(const Netns& netns, const Command& command, const std::function<void()>& in_child = {});
    ~Process();
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;

    [[nodiscard]] pid_t pid() const { return pid_; }
    /// Everything that it has written so far.
    const std::string& output();
    /// The next line that it writes and that no earlier call returned. Fails the test if the process ends before, or
    /// after the time limit.
    std::string next_line();
    /// The next line with `text` in it.
    std::string wait_for(std::string_view text);
    void signal(int number) const;
    /// Stops it by SIGSTOP, and waits until it stands still. SIGCONT lets it go on.
    void freeze() const;
    /// Waits for its end; returns its exit code, or minus the signal that ended it. output() is complete then.
    int wait();
    /// User and system time used so far.
    [[nodiscard]] std::chrono::milliseconds cpu_time() const;
    /// Number in kB behind `name` in /proc/PID/status: "VmRSS", say.
    [[nodiscard]] long status_kb(std::string_view name) const;
    /// By read(2) and its like, so far.
    [[nodiscard]] long bytes_read() const;

 private:
    bool read_some(std::chrono::milliseconds timeout);

    pid_t pid_ = -1;
    Fd out_;
    std::string output_;
    std::size_t seen_ = 0;
};

/// True once it has ended, though nobody reads what it writes.
bool ends(const Process& process);

/// True once it does nothing for half a second. It can take a while: where packets were lost, they are sent again.
bool comes_to_rest(const Process& process);

/// How many it has open.
std::ptrdiff_t descriptors_of(const Process& process);

struct Result {
    int code;
    std::string output;
};

/// Runs `command` to its end.
Result run(const Netns& netns, const Command& command, const std::function<void()>& in_child = {});

/// The same, and fails the test if it fails; returns what it wrote.
std::string run_ok(const Netns& netns, const Command& command);

}  // namespace echo_server
