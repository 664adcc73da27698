// SPDX-License-Identifier: BSD-2-Clause
#include "echo/pipe.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>

#include "base/error.h"

namespace echo_server {

Pipe::Pipe() {
    if (!make()) fail("pipe2");
}

bool Pipe::prepare() noexcept {
    if (bytes() != 0) discard();
    return in_ || make();
}

std::optional<int> Pipe::bytes() const noexcept {
    if (!out_) return 0;
    int bytes = 0;
    if (::ioctl(out_.get(), FIONREAD, &bytes) != 0) return {};
    return bytes;
}

void Pipe::discard() noexcept {
    in_ = Fd();
    out_ = Fd();
    make();  // at once: the descriptors are free now, and connections may need them later
}

bool Pipe::make() noexcept {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return false;
    out_ = Fd(ends[0]);
    in_ = Fd(ends[1]);
    return true;
}

}  // namespace echo_server
