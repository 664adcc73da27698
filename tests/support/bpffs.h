// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "support/process.h"
#include "support/temporary.h"

namespace echo_server {

constexpr uid_t nobody = 65534;

inline struct stat status_of_file(const std::string& path) {
    struct stat status{};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    return status;
}

inline uid_t owner_of(const std::string& path) { return status_of_file(path).st_uid; }

/// Runs `command` as nobody, without capabilities.
inline Result run_as_nobody(const Netns& netns, Command command) {
    const Command prefix{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"};
    command.insert(command.begin(), prefix.begin(), prefix.end());
    return run(netns, command);
}

/// A BPF file system that belongs to user `owner`.
class Bpffs {
 public:
    explicit Bpffs(uid_t owner) {
        REQUIRE(::mkdtemp(path_.data()) != nullptr);
        REQUIRE(::mount("none", path_.c_str(), "bpf", 0, nullptr) == 0);
        REQUIRE(::chown(path_.c_str(), owner, owner) == 0);
    }
    ~Bpffs() {
        ::umount2(path_.c_str(), MNT_DETACH);
        ::rmdir(path_.c_str());
    }
    Bpffs(const Bpffs&) = delete;
    Bpffs& operator=(const Bpffs&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] std::string ports() const { return path_ + "/echo_ports"; }
    [[nodiscard]] std::string socket() const { return path_ + "/echo_socket"; }

 private:
    std::string path_ = temporary_name();
};

}  // namespace echo_server
