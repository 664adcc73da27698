// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/capability.h>

#include <initializer_list>
#include <string>

namespace echo_server {

/// A user and group with no name and no rights.
constexpr unsigned ordinary_user = 54321;

/// Whether the kernel that runs is older than that.
bool kernel_before(int major, int minor);

// For Process's in_child: what the program to come shall do without, or suffer.

/// Makes it an ordinary user with only these capabilities, which it has in the ambient set.
void become_ordinary(std::initializer_list<int> capabilities);

/// Leaves root only these capabilities.
void keep_capabilities(std::initializer_list<int> kept);

/// Lets system call `number` fail with `error`; with `first_argument` of 0 or more, only where its first argument is
/// that.
void refuse_system_call(int number, int first_argument, int error);

/// The same, but the call kills the process (SIGSYS).
void kill_at_system_call(int number, int first_argument);

/// Sets both limits of RLIMIT_MEMLOCK.
void limit_locked_memory(unsigned long most);

/// Sets RLIMIT_NOFILE: both limits, or the soft one alone.
void limit_descriptors(unsigned long most);
void limit_descriptors_softly(unsigned long most);

/// Closes those of the standard streams, 0 to 2, whose bits are set in `streams`.
void close_standard_streams(unsigned streams);

/// Goes on in a child of its own; waits for that child, and ends with its exit code. The child is killed with it, as
/// long as it stays the same user.
void go_on_in_child();

}  // namespace echo_server
