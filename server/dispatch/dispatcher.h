// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "dispatch/instances.h"
#include "echo_dispatch.h"
#include "net/address.h"
#include "net/port_set.h"

struct echo_dispatch_bpf;

namespace echo_server {

/// The key of a prefix in the map echo_addresses.
echo_prefix to_key(const AddressPrefix& prefix);

/// The prefix of a key. The key may be invalid, because others can write to the map.
AddressPrefix to_prefix(const echo_prefix& key);

/// The keys of the map echo_ports, by its descriptor. Throws std::system_error.
PortSet read_ports(int map);

/// The keys of the map echo_addresses. Throws std::system_error.
std::vector<AddressPrefix> read_addresses(const MapHandle& map);

/// Steers new connections as long as it, or the copy that systemd keeps, is open.
using Link = Fd;

/// The figures of a port: all fields of echo_port_stats but `left_out`.
constexpr std::array port_figures{&echo_port_stats::lookups, &echo_port_stats::accepted, &echo_port_stats::echoed,
                                  &echo_port_stats::received, &echo_port_stats::sent};
static_assert((port_figures.size() + 1) * sizeof(__u64) == sizeof(echo_port_stats), "add the new field");

/// Why Dispatcher::may_use_maps() returns false.
constexpr auto why_maps_are_refused =
    "on this kernel BPF maps need CAP_BPF, and the server was started without it: give it CAP_BPF "
    "(AmbientCapabilities= in a systemd unit)";

/// Owns the dispatch program and its maps, and pins none: they vanish with their last descriptor, however the process
/// ends. Functions that fail throw std::runtime_error.
class Dispatcher {
 public:
    /// Loads the program, for connections to `addresses` (to every address if there are none). Steers nothing yet.
    /// counters() has one element per thread.
    explicit Dispatcher(const std::vector<AddressPrefix>& addresses = {}, std::size_t threads = 1);
    ~Dispatcher();

    /// Puts `listener`, a listening TCP socket, into echo_socket. To be called once: no process can change that map
    /// afterwards. The kernel takes the socket out when it is closed.
    void set_listener(int listener);

    struct Change {
        PortSet added;
        PortSet removed;
    };

    /// The contents of echo_ports; others may have changed them.
    [[nodiscard]] PortSet ports() const { return read_ports(ports_fd()); }

    /// Changes echo_ports to exactly `wanted`, and returns what changed. Does not touch a port that stays.
    Change set_ports(const PortSet& wanted);

    /// Opens the ports `opened`, then closes the ports `closed`. If it throws, some may be changed already.
    void change_ports(const PortSet& closed, const PortSet& opened);

    /// Tells 'status' which ports the ranges of the list leave out: other programs listen on `taken`, and the host uses
    /// `hosts`.
    void show_left_out(const PortSet& taken, const PortSet& hosts);

    /// Steers connections for the ports in echo_ports from now on, in the network namespace of the calling thread.
    [[nodiscard]] Link attach();

    /// True if `link` steers connections, or if the kernel does not tell; false if somebody has detached the
    /// program; nothing if `link` is empty.
    [[nodiscard]] static std::optional<bool> is_attached(const Link& link);

    /// True if the calling thread may read and change maps: before Linux 5.19 that needs CAP_BPF.
    [[nodiscard]] bool may_use_maps() const;

    /// Writes `identity` into the map echo_instance, and freezes it. Returns this server as other processes see it,
    /// with copies of the descriptors. To be called once.
    [[nodiscard]] Instance publish(const echo_instance& identity);

    /// The contents of the map echo_counters, shared with the kernel. Valid as long as this object exists.
    [[nodiscard]] std::span<echo_counters> counters() const { return counters_; }
    /// The same for the map echo_port_stats: an element for each 16-bit port.
    [[nodiscard]] std::span<echo_port_stats> port_stats() const { return port_stats_; }

    /// Sets the figures of all ports to 0, one after the other: a client that connects meanwhile may count in only some
    /// of them.
    void reset_port_stats();

    /// The descriptors of the two maps that Pins pins.
    [[nodiscard]] int ports_fd() const;
    [[nodiscard]] int socket_fd() const;

 private:
    std::unique_ptr<echo_dispatch_bpf, void (*)(echo_dispatch_bpf*)> skeleton_;
    std::span<echo_counters> counters_;
    std::span<echo_port_stats> port_stats_;
};

/// Pins of the maps echo_ports and echo_socket in a directory of a BPF file system. With them, a user who is not root
/// can use the maps (bpftool map ... pinned PATH). Made with the rights of that user. Until rename(), they do not
/// replace those of a running server. The destructor removes them, unless others have replaced them.
class Pins {
 public:
    Pins() = default;
    ~Pins();
    Pins(const Pins&) = delete;
    Pins& operator=(const Pins&) = delete;

    /// Throws std::runtime_error if `folder` is not on a BPF file system, or this process can't write there.
    static void check_folder(const std::string& folder);

    /// Pins the maps of `dispatcher` in `folder` as NAME_new. Throws std::runtime_error.
    void add(const std::string& folder, const Dispatcher& dispatcher);

    /// Renames the pins to NAME: to be called once the start can't fail any more. Returns whether this has replaced
    /// other pins. Throws std::runtime_error.
    bool rename();

 private:
    struct Pin {
        std::string path;  // the final one
        std::string path_now;
        ino_t inode;
    };
    std::vector<Pin> pins_;
};

/// Logs libbpf's own messages, or drops them.
void set_libbpf_verbose(bool verbose);

/// What to do where the program could not be loaded; `error` is the errno of the attempt.
std::string_view hint_of_load(int error, bool has_sk_lookup, bool has_sockmap);

}  // namespace echo_server
