// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/bpf.h>

#include <string>

namespace echo_server {

// For Process's in_child: the program to come gets one of these faults, by the preloaded library faults.c.

/// How many calls go well before the rest fail.
struct after {
    explicit after(int count) : calls(count) {}
    int calls;
};
/// bpf(2) with `command` fails with ENOMEM.
void fail_bpf(bpf_cmd command, after first);

/// accept4(2) fails with `error` ("EMFILE") for half a second, or "ECONNABORTED" for three clients. A program that
/// spins then is aborted.
void fail_accept(const std::string& error);

/// epoll(7) takes no connection: `error` is "ENOSPC", say.
void fail_epoll(const std::string& error);

/// Calls of the splice path fail, as in "out:short read:EIO"; faults.c has the words.
void fail_splice(const std::string& calls);

/// The wall clock jumps by years.
void jump_wall_clock();

/// Each read of the beginning of the file adds a line to it, from the third read(2) on.
void append_while_reading(const std::string& path);

/// Reading the file hangs as long as there is a file PATH.hang, and asking for the rights to it as long as there is
/// PATH.hang_at_access; PATH.hangs says that it hangs. For the program each wait lasts an hour.
void hang_at(const std::string& path);

/// The file takes the place of the first file that the program moves or removes, at the last moment before.
void swap_in_at_rename(const std::string& path);

}  // namespace echo_server
