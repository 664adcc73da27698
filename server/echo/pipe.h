// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>

#include "base/fd.h"

namespace echo_server {

/// A pipe through which splice(2) takes bytes from a socket, and back to it, without a copy. Clients share it, one after
/// the other: what one has left in it must never get to the next.
class Pipe {
 public:
    /// Throws std::system_error.
    Pipe();

    /// Makes sure that it is there and empty, for the first bytes of a stream: bytes that were left in it go. Returns
    /// false if the kernel gives none.
    bool prepare() noexcept;
    /// How many bytes are in it, or nothing if the kernel does not tell. One that is not there holds none.
    [[nodiscard]] std::optional<int> bytes() const noexcept;
    /// Throws it away, and with it every byte that is in it, for a new one. If the kernel gives none, it is not there until
    /// prepare() makes it.
    void discard() noexcept;

    /// Its ends; -1 if it is not there.
    [[nodiscard]] int in() const noexcept { return in_.get(); }
    [[nodiscard]] int out() const noexcept { return out_.get(); }

 private:
    bool make() noexcept;

    Fd in_;
    Fd out_;
};

}  // namespace echo_server
