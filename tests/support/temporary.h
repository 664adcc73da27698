// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <filesystem>
#include <string>

namespace echo_server {

/// A name for mkstemp(3) and mkdtemp(3), in the folder TMPDIR, or in /tmp.
inline std::string temporary_name() {
    return (std::filesystem::temp_directory_path() / "echo-server-test-XXXXXX").string();
}

}  // namespace echo_server
