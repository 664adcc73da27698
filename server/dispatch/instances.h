// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/bpf.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "echo_dispatch.h"

namespace echo_server {

/// A BPF map of a server, perhaps of another version.
struct MapHandle {
    Fd fd;
    bpf_map_info info;

    /// Reads the value at `key` of an array or a sockmap into `value`, at most `size` bytes; a shorter value leaves the
    /// rest as it is. Returns false if there is no value. Throws std::system_error if it can't be read.
    bool read(__u32 key, void* value, std::size_t size) const;

    /// Throws std::system_error, which names the map.
    [[noreturn]] void fail_to_read(int error = errno) const;
};

/// An echo-server in the network namespace of the calling thread, found by its BPF program, without asking the process.
struct Instance {
    enum class State {
        serving,     ///< connections are steered to it
        socketless,  ///< the program is attached, and the listening socket is gone: connections are refused
        detached,    ///< the socket listens, and the program was detached from outside: the ports are closed
        waiting,     ///< connections are steered to its socket, which no process serves now: see 'status'
        draining,    ///< it serves only the connections that it has already
    };

    std::uint32_t program = 0;  ///< id of its program
    State state = State::draining;
    std::vector<MapHandle> maps;
    echo_instance identity;  ///< who it is

    /// Adds the map that is open as `map`, if there is one. Throws std::system_error.
    void add_map(Fd map);
    [[nodiscard]] bool attached() const { return state == State::serving || state == State::socketless; }
    [[nodiscard]] const MapHandle* map(std::string_view name) const;
    /// True if its maps have the types and the sizes of keys and values of this version. They can have any number of
    /// entries. If false, only `identity` and listener_cookie() can be read.
    [[nodiscard]] bool is_of_this_version() const;
    /// The socket in its echo_socket, by its cookie; 0 for none. Throws std::system_error if it can't be read.
    [[nodiscard]] std::uint64_t listener_cookie() const;
};

/// The state of `server`. `attached`: true if its link attaches the program, false if it was detached from outside,
/// nothing if there is no link. Throws std::system_error if a map can't be read.
Instance::State state_of(const Instance& server, std::optional<bool> attached);

/// The contents of its map echo_instance; nothing if there is no such map, or if it has no PID: the program is of
/// something else, or of a server that starts. Throws std::system_error if it can't be read.
std::optional<echo_instance> read_identity(const Instance& server);

/// True if its PID is of this PID namespace. In others, this PID can be another process.
bool in_this_pid_namespace(const echo_instance& identity);

/// True if its process is known to be gone. Its program stays while somebody has it open, or has pinned its link.
bool has_ended(const echo_instance& identity);

/// True unless it drains or its process has ended.
bool is_running(const Instance& server);

/// All echo-servers whose program is attached here, or was: also those that start or drain. Needs CAP_SYS_ADMIN. Throws
/// std::system_error (EPERM without it).
std::vector<Instance> find_instances();

/// The number of all sk_lookup programs that are attached here; 0 if the kernel can't tell. Needs only CAP_NET_ADMIN.
std::size_t attached_programs();

}  // namespace echo_server
