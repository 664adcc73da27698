// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <bpf/libbpf.h>

#include <cstdint>
#include <memory>
#include <string>

#include "port_set.h"

struct echo_dispatch_bpf;

/// Owns the dispatch program, its maps and its link. Nothing of them is pinned: they end with this object, or with
/// the process, in whatever way that ends. What fails throws std::runtime_error, saying what was tried and why it could
/// not be.
class Dispatcher {
 public:
    /// Loads the program and puts `listener`, a listening TCP socket, into echo_socket. Nothing is steered yet.
    explicit Dispatcher(int listener);
    ~Dispatcher();
    Dispatcher(const Dispatcher&) = delete;
    Dispatcher& operator=(const Dispatcher&) = delete;

    struct Change {
        PortSet added;
        PortSet removed;
    };

    /// Makes echo_ports hold exactly `wanted`, whoever put in what is there, and returns what that took. A port that
    /// stays is not touched, and new ones are added before old ones are removed. If it throws, part of that may be done.
    Change set_ports(const PortSet& wanted);

    /// Steers connections for the ports in echo_ports from now on, in the network namespace of the calling thread.
    void attach();

    /// Ends that; connections already made are not touched.
    void detach() noexcept { link_.reset(); }

    /// Inode number of the network namespace attached to, as 'bpftool link' shows it.
    [[nodiscard]] std::uint64_t netns_inode() const { return netns_inode_; }

 private:
    struct DestroySkeleton {
        void operator()(echo_dispatch_bpf* skeleton) const;
    };
    struct DestroyLink {
        void operator()(bpf_link* link) const { bpf_link__destroy(link); }
    };

    [[nodiscard]] int ports_fd() const;
    [[nodiscard]] PortSet read_ports() const;

    std::unique_ptr<echo_dispatch_bpf, DestroySkeleton> skeleton_;
    std::unique_ptr<bpf_link, DestroyLink> link_;
    std::uint64_t netns_inode_ = 0;
};

/// Where libbpf's own messages go: standard error, or nowhere.
void set_libbpf_verbose(bool verbose);

/// Why the program could not be loaded, in a user's words; `error` is the errno of the attempt.
std::string explain_load_error(int error, bool has_sk_lookup, bool has_sockmap);
