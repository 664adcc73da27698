// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <vector>

#include "base/privileges.h"

namespace echo_server {

/// For as long as it lives, the calling thread opens, makes and removes files with the rights of a user: that user's
/// numbers, no supplementary group, and no capability that is about files. Its other capabilities stay. Where the process
/// is not root, numbers and groups are its user's already.
class FileRightsOf {
 public:
    /// Throws std::runtime_error if the kernel refuses: going on with root's rights instead is no choice.
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
