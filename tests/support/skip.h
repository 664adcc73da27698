// SPDX-License-Identifier: BSD-2-Clause
#pragma once

namespace echo_server {

/// How many tests of this run were skipped. doctest itself can't skip a test that has begun: it counts them as passed.
inline int skipped_tests = 0;

/// Whether a child can do `step`, which sets errno when it fails. Only in a chroot is the result false, because there
/// the kernel may refuse the step. Then the reason is printed, and the test must return: it is skipped.
bool possible_in_child(bool (*step)());

// Such steps, for Process's in_child, too.

/// Gives the process its own user namespace.
bool leave_user_namespace();
/// Gives the process its own mounts: what it changes there stays there.
bool leave_mount_namespace();

}  // namespace echo_server
