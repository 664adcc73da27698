// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/privileges.h"

namespace echo_server {

/// As long as it exists, the calling thread opens, makes and removes files with the rights of a user: with the user's
/// numbers and supplementary groups, and without capabilities for files. Other capabilities stay. Where the
/// process is not root, numbers and groups are its user's already.
class FileRightsOf {
 public:
    /// Throws std::runtime_error if the kernel refuses: never go on with root's rights instead.
    explicit FileRightsOf(const User& user);
    ~FileRightsOf();
    FileRightsOf(const FileRightsOf&) = delete;
    FileRightsOf& operator=(const FileRightsOf&) = delete;

 private:
    void restore() noexcept;

    bool by_root_;
    std::vector<gid_t> groups_;
    Capabilities capabilities_;
};

}  // namespace echo_server
