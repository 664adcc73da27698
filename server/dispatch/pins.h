// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/privileges.h"

namespace echo_server {

/// Pins of maps in a folder of a BPF file system: with them a user who is not root can use the maps (bpftool map ...
/// pinned PATH). The pins get their names last, when the start can't fail any more: until then the pins of a running
/// server, which may have the same names, stay. Removed with the object.
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

    /// Throws std::runtime_error if `folder` is none in which maps can be pinned.
    static void check_folder(const std::string& folder);

    /// Pins `maps` in `folder` for `owner`, under names that nobody else uses. Throws std::runtime_error.
    void add(const std::string& folder, const std::vector<Map>& maps, const User& owner);

    /// Renames the pins to the names of their maps, in the order of the maps. Replaces pins with these names. Throws
    /// std::runtime_error.
    void publish();
    /// The same if the owner has no right to do that in the folder, otherwise nothing. To be called while the process
    /// is root.
    void publish_as_root();

    /// True if other pins had these names. Known once the pins are published.
    [[nodiscard]] bool replaced_existing() const { return replaced_existing_; }

    /// True if this process, with its present rights, can use files in `folder`.
    [[nodiscard]] static bool reachable(const std::string& folder);
    /// True if this process, with its present rights, can remove the pins.
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
