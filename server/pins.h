// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "privileges.h"

/// Pins of maps in a folder of a BPF file system, by which a user who is not root can use them (bpftool map ... pinned
/// PATH). Removed with the object.
class Pins {
 public:
    Pins() = default;
    ~Pins();
    Pins(const Pins&) = delete;
    Pins& operator=(const Pins&) = delete;

    struct Map {
        std::string name;
        int fd;
    };

    /// Pins each of `maps` as `folder`/NAME and gives it to `owner`. A pin of that name which is there already, say one
    /// that a killed server left, is replaced. Throws std::runtime_error.
    void add(const std::string& folder, const std::vector<Map>& maps, const User& owner);

    /// True if this process, as it is now, will be able to remove them.
    [[nodiscard]] bool removable() const;

 private:
    struct Pin {
        std::string path;
        unsigned map_id;
    };
    std::string folder_;
    std::vector<Pin> pins_;
};
