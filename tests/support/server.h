// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

#include "support/process.h"

namespace echo_server {

/// The real echo-server, running and ready.
class Server : public Process {
 public:
    Server(const Netns& netns, const Command& arguments, const std::function<void()>& in_child = {});

    /// Sends SIGHUP; returns the one line that says what came of it.
    std::string reload();
};

/// The command that starts it with `arguments`.
Command echo_server(const Command& arguments);

/// A file with `text` in it, gone with the object.
class TempFile {
 public:
    explicit TempFile(std::string_view text);
    ~TempFile();
    TempFile(const TempFile&) = delete;
    TempFile& operator=(const TempFile&) = delete;

    void write(std::string_view text) const;
    [[nodiscard]] const std::string& path() const { return path_; }

 private:
    std::string path_;
};

/// Whether 'echo-server status' in a namespace has `text` in it.
bool status_shows(const Netns& netns, std::string_view text);

/// How many BPF links a network namespace has.
std::size_t count_links(const Netns& netns);

/// True once the kernel has no program or link any more of a server that ran in a namespace. It frees them a little
/// after the process ends, and after whoever looks at them has closed them.
bool nothing_left(const Netns& netns);

/// The ids, for bpftool, of what the server in a namespace has in the kernel.
class BpfObjects {
 public:
    /// Finds them by the namespace's sk_lookup link; fails the test unless there is exactly one.
    explicit BpfObjects(const Netns& netns);

    std::string link;
    std::string program;
    std::map<std::string, std::string> maps;  // by name

    /// True once the kernel has none of them any more; it frees them a little after the process ends.
    [[nodiscard]] bool gone() const;

 private:
    const Netns& netns_;
};

}  // namespace echo_server
