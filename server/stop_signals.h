// SPDX-License-Identifier: BSD-2-Clause
#pragma once

// SIGINT and SIGTERM during a start: one that was told to stop must not go on to end the process that it was to replace.

/// From now on they wait.
void hold_back_stop_signals();

/// Throws std::runtime_error if one waits.
void check_stop_signals();

/// They take effect again.
void release_stop_signals();
