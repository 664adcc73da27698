// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/bpf.h>

#include <string>

namespace echo_server {

// For Process's in_child: the program gets the fault by the preloaded library faults.c.

/// The number of calls that succeed before all others fail.
struct after {
    explicit after(int count) : calls(count) {}
    int calls;
};
/// bpf(2) with `command` fails with ENOMEM.
void fail_bpf(bpf_cmd command, after first);

/// The same, as long as the file is not empty.
void fail_bpf(bpf_cmd command, const std::string& path);

/// accept4(2) fails with `error` ("EMFILE") for half a second, or with "ECONNABORTED" for three clients. A program that
/// spins is aborted.
void fail_accept(const std::string& error);

/// epoll(7) refuses every connection with `error` ("ENOSPC").
void fail_epoll(const std::string& error);

/// Calls of the splice path fail, for example "out:short read:EIO"; faults.c explains the words.
void fail_splice(const std::string& calls);

/// Two of three allocations fail as long as the file is not empty. Not with a sanitizer, which has its own allocator.
void fail_memory(const std::string& path);

/// The wall clock jumps by years.
void jump_wall_clock();

/// Each read of the file's beginning adds a line to the file, from the third read(2) on.
void append_while_reading(const std::string& path);

/// Reading the file hangs as long as PATH.hang exists. PATH.hangs tells the test that the program hangs.
void hang_at(const std::string& path);
/// The same, and for the program each wait lasts an hour.
void hang_for_an_hour_at(const std::string& path);

}  // namespace echo_server
