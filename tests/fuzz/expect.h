// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdlib>

namespace echo_server {

/// Ends the fuzzer, as a finding, unless `holds`.
inline void expect(bool holds) {
    if (!holds) std::abort();
}

}  // namespace echo_server
