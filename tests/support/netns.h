// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <string>

#include "base/os.h"

namespace echo_server {

/// A fresh network namespace with only a loopback interface, which is up. It ends when nobody uses it.
class Netns {
 public:
    Netns();

    [[nodiscard]] int fd() const { return fd_.get(); }
    /// A path of the namespace for tools, valid as long as this process runs.
    [[nodiscard]] std::string path() const;
    /// The name in the output of 'bpftool link'.
    [[nodiscard]] unsigned long inode() const;

    /// Puts the calling thread into the namespace until the destructor: its sockets and children belong there.
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

/// Sets a sysctl, named with slashes instead of dots: net/core/somaxconn.
void set_sysctl(const Netns& netns, const std::string& name, const std::string& value);

/// The talk's two machines, with one cable between them.
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
