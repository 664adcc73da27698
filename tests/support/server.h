// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "support/process.h"
#include "support/temporary.h"

namespace echo_server {

/// The real echo-server, running and ready.
class Server : public Process {
 public:
    Server(const Netns& netns, const Command& arguments, const std::function<void()>& in_child = {});

    /// Sends SIGHUP; returns the one line of the result.
    std::string reload();
};

/// Waits until a server that was started as a Process serves, or has said why not. False after the time limit.
bool start_is_over(Process& server);

/// The command that starts it with `arguments`.
Command echo_server(const Command& arguments);

/// The path of the library that inject_fault.h loads into a server.
std::string faults_library();

/// A file that contains `text`; the destructor removes it.
class TempFile {
 public:
    explicit TempFile(std::string_view text);
    ~TempFile();
    TempFile(const TempFile&) = delete;
    TempFile& operator=(const TempFile&) = delete;

    void write(std::string_view text) const;
    [[nodiscard]] const std::string& path() const { return path_; }

 private:
    std::string path_ = temporary_name();
};

/// Whether 'echo-server status' in a namespace prints `text`.
bool status_shows(const Netns& netns, std::string_view text);

/// The number of BPF links of a network namespace.
std::size_t count_links(const Netns& netns);

/// Detaches the only program of a network namespace. Its server does not notice.
void detach_program(const Netns& netns);

/// True once the kernel has freed every program and link of a server in a namespace. The kernel frees them a little
/// after the process ends, and after all other processes have closed them.
bool nothing_left(const Netns& netns);

/// The ids, for bpftool, of a server's objects in the kernel.
class BpfObjects {
 public:
    /// Finds them by the namespace's sk_lookup link; fails the test unless there is exactly one link.
    explicit BpfObjects(const Netns& netns);

    std::string link;
    std::string program;
    std::map<std::string, std::string> maps;  // by name

    /// True once the kernel has freed all of them, a little after the process ends.
    [[nodiscard]] bool gone() const;

 private:
    const Netns& netns_;
};

}  // namespace echo_server
