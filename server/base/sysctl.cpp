// SPDX-License-Identifier: BSD-2-Clause
#include "base/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"

namespace echo_server {

std::optional<std::string> read_sysctl(const std::string& name) {
    const Fd file(::open(("/proc/sys/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return {};
    // The kernel returns a whole value in one call, or cuts it off; a list of every second port has 200 KB.
    std::string value(std::size_t{256} << 10U, '\0');
    const auto size = ::read(file.get(), value.data(), value.size());
    if (size < 0) return {};
    value.resize(static_cast<std::size_t>(size));
    value.resize(value.find_last_not_of('\n') + 1);
    return value;
}

}  // namespace echo_server
