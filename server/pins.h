// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>
#include <vector>

#include "fd.h"
#include "privileges.h"

/// Pins of maps in a folder of a BPF file system, by which a user who is not root can use them (bpftool map ... pinned
/// PATH). Removed with the object; before keep(), what they replaced is put back instead.
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

    /// From now on they stay, as long as the object lives.
    void keep();

    /// True if other pins were there before.
    [[nodiscard]] bool replace_others() const { return was_there_; }

    /// True if this process, as it is now, can use files in `folder` by its name.
    [[nodiscard]] static bool reachable(const std::string& folder);
    /// True if this process, as it is now, will be able to remove them.
    [[nodiscard]] bool removable() const;

 private:
    struct Pin {
        std::string name;
        unsigned map_id;
        Fd previous;  // the map pinned there before, if any, until keep()
    };
    [[nodiscard]] std::string path_of(const std::string& name) const;

    Fd folder_;
    User owner_;
    bool was_there_ = false;
    std::vector<Pin> pins_;
};
