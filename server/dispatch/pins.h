// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/privileges.h"

namespace echo_server {

/// Pins of maps in a folder of a BPF file system, by which a user who is not root can use them (bpftool map ... pinned
/// PATH). They get their names last, when the start can't fail any more: until then the pins of a running server, which
/// may have the same names, stay what they are. Removed with the object.
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

    /// Pins each of `maps` in `folder` for `owner`, under a name that nobody else uses. Throws std::runtime_error.
    void add(const std::string& folder, const std::vector<Map>& maps, const User& owner);

    /// Gives the pins the names of their maps, in the order of the maps. Pins that have these names are replaced. Throws
    /// std::runtime_error.
    void publish();
    /// The same in a folder where the owner may not do that, to be called before root's rights go; else does nothing.
    void publish_as_root();

    /// True if other pins had these names. Known once the pins are published.
    [[nodiscard]] bool replaced_existing() const { return replaced_existing_; }

    /// True if this process, as it is now, can use files in `folder` by its name.
    [[nodiscard]] static bool reachable(const std::string& folder);
    /// True if this process, as it is now, will be able to remove them.
    [[nodiscard]] bool removable() const;

 private:
    struct Pin {
        std::string name;
        ino_t inode;
    };
    void remove_left_behind(const std::vector<Map>& maps) const;
    [[nodiscard]] std::string path_of(std::string_view name) const;
    [[noreturn]] void fail(std::string_view name, int error) const;

    Fd folder_;
    std::string folder_name_;
    User owner_;
    bool with_roots_rights_ = false;
    bool published_ = false;
    bool replaced_existing_ = false;
    std::vector<Pin> pins_;
};

}  // namespace echo_server
