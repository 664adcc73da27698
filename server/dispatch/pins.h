// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

namespace echo_server {

/// Pins of maps in a folder of a BPF file system: with them a user who is not root can use the maps (bpftool map ...
/// pinned PATH). Made with the rights of the process, which is that user. Until rename() the pins of a running server,
/// which have the same names, stay. Removed with the object, unless others have replaced them.
class Pins {
 public:
    Pins() = default;
    ~Pins();
    Pins(const Pins&) = delete;
    Pins& operator=(const Pins&) = delete;

    /// Throws std::runtime_error if `folder` is not on a BPF file system, or this process may not write there.
    static void check_folder(const std::string& folder);

    /// Pins `maps`, by name and descriptor, in `folder` as NAME_new. Throws std::runtime_error.
    void add(const std::string& folder, const std::vector<std::pair<std::string, int>>& maps);

    /// Renames the pins to NAME, in the order of the maps: to be called once the start can't fail any more. Returns
    /// whether this has replaced other pins. Throws std::runtime_error.
    bool rename();

 private:
    struct Pin {
        std::string path;  // in the end
        std::string path_now;
        ino_t inode;
    };
    std::vector<Pin> pins_;
};

}  // namespace echo_server
