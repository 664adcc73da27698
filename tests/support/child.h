// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/capability.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "support/process.h"

namespace echo_server {

/// A user and group with no name and no rights.
constexpr unsigned ordinary_user = 54321;

/// Whether the running kernel is older than this version.
bool kernel_before(int major, int minor);

// For Process's in_child: these change the new process before it becomes the program.

/// Makes it an ordinary user with only these capabilities, in the ambient set.
void become_ordinary(std::initializer_list<int> capabilities);

/// Leaves root only these capabilities.
void keep_capabilities(std::initializer_list<int> kept);

/// System call `number` fails with `error`. With a `first_argument` of 0 or more, it fails only with this first
/// argument.
void refuse_system_call(int number, int first_argument, int error);

/// The same, but the system call kills the process (SIGSYS).
void kill_at_system_call(int number, int first_argument);

/// Sets both limits of RLIMIT_MEMLOCK.
void limit_locked_memory(unsigned long max);

/// Sets RLIMIT_NOFILE: both limits, or only the soft limit.
void limit_descriptors(unsigned long max);
void limit_descriptors_softly(unsigned long max);

/// Closes the standard streams, 0 to 2, whose bits are set in `streams`.
void close_standard_streams(unsigned streams);

/// Goes on in a child process; the parent waits for it, and ends with its exit code. The child is killed with its
/// parent, as long as it stays the same user.
void go_on_in_child();

// For the test itself.

/// A step of a start: a system call, with a `first_argument` of 0 or more only with this first argument.
struct StartStep {
    std::string name;
    int number;
    int first_argument = -1;
};

enum class StepEnd { failed, killed };

/// Runs `command` twice for each step: with `error` at this step, and killed there. Checks that the command ends in
/// that way and, after a failure, that it names the error; calls `check` after each run.
void at_each_step(const Netns& netns, const Command& command, int error, const std::vector<StartStep>& steps,
                  const std::function<void(StepEnd)>& check);

}  // namespace echo_server
