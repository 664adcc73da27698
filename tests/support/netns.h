// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>

#include "base/fd.h"

namespace echo_server {

/// A pristine network namespace with only a loopback interface, up. It is gone when nobody uses it any more.
class Netns {
 public:
    Netns();

    [[nodiscard]] int fd() const { return fd_.get(); }
    /// For tools that take a namespace by path, as long as this process lives.
    [[nodiscard]] std::string path() const;
    /// As 'bpftool link' shows it.
    [[nodiscard]] unsigned long inode() const;

    /// Puts the calling thread into the namespace for as long as it lives: what it opens or starts belongs there.
    class Entered {
     public:
        explicit Entered(const Netns& netns);
        ~Entered();
        Entered(const Entered&) = delete;
        Entered& operator=(const Entered&) = delete;

     private:
        Fd before_;
    };

 private:
    Fd fd_;
};

/// Sets what 'sysctl' names with dots, with slashes instead: net/core/somaxconn.
void set_sysctl(const Netns& netns, const std::string& name, const std::string& value);

/// The talk's two machines, one cable between them.
struct Network {
    static constexpr auto host_ip4 = "192.0.2.1";
    static constexpr auto host_ip6 = "2001:db8::1";
    static constexpr auto vm_ip4 = "192.0.2.2";
    static constexpr auto vm_ip6 = "2001:db8::2";

    Network();

    Netns host;
    Netns vm;
};

}  // namespace echo_server
