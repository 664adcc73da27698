// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>

#include "base/fd.h"

namespace echo_server {

/// A pipe through which splice(2) moves bytes from a socket and back to it without a copy. Clients share it, one
/// after the other: bytes that a client leaves must never get to the next client.
class Pipe {
 public:
    /// Throws std::system_error.
    Pipe();

    /// Makes sure that the pipe exists and is empty, for the first bytes of a stream. Returns false if the kernel
    /// refuses a pipe.
    bool prepare() noexcept;
    /// The number of bytes in the pipe, or nothing if the kernel can't tell. A pipe that does not exist has 0.
    [[nodiscard]] std::optional<int> bytes() const noexcept;
    /// Replaces the pipe by a new one: all bytes in it are gone. If the kernel refuses a pipe, there is none until
    /// prepare() makes it.
    void discard() noexcept;

    /// Its ends; -1 if it does not exist.
    [[nodiscard]] int in() const noexcept { return in_.get(); }
    [[nodiscard]] int out() const noexcept { return out_.get(); }

 private:
    bool make() noexcept;

    Fd in_;
    Fd out_;
};

}  // namespace echo_server
