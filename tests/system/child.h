// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/capability.h>

#include <initializer_list>

// For Process's in_child: what the program to come shall not have.

/// Leaves it only these capabilities, root or not.
void keep_capabilities(std::initializer_list<int> kept);

/// Lets system call `number` fail with `error`; with `first_argument` of 0 or more, only where its first argument is
/// that.
void refuse_system_call(int number, int first_argument, int error);

/// Sets RLIMIT_NOFILE.
void limit_descriptors(unsigned long most);
