// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "echo_dispatch.h"

namespace echo_server {

/// A BPF map of some server, perhaps of another version than this one.
struct MapHandle {
    Fd fd;
    bpf_map_info info;

    /// Reads the value at `key` into `value`, if it has keys of that size, and is an array or a hash. A value that is
    /// shorter there leaves the rest as it is. Returns false if there is none.
    template <typename Key, typename Value>
    bool read(const Key& key, Value& value) const {
        return read(&key, sizeof(key), &value, sizeof(value));
    }

 private:
    bool read(const void* key, std::size_t key_size, void* value, std::size_t value_size) const;
};

/// An echo-server in the network namespace of the calling thread, as the kernel shows it: by its program, that is, not
/// by asking the process.
struct RunningServer {
    enum class State {
        serving,     ///< connections are steered to it
        socketless,  ///< its program is attached, and its listening socket is gone: connections are refused
        detached,    ///< its socket listens, and its program was detached from outside: its ports are closed
        draining,    ///< it serves the connections that it has
    };

    std::uint32_t program = 0;  ///< id of its program
    State state = State::draining;
    std::vector<MapHandle> maps;
    std::optional<echo_instance> identity;  ///< nothing if it is of a version that has none

    [[nodiscard]] bool attached() const { return state == State::serving || state == State::socketless; }
    [[nodiscard]] const MapHandle* map(std::string_view name) const;
    /// The socket in its echo_socket, by its cookie; 0 for none.
    [[nodiscard]] std::uint64_t listener_cookie() const;
};

/// What its map echo_instance says; nothing if it has none of that kind.
std::optional<echo_instance> read_identity(const RunningServer& server);

/// True if its PID means the same process here. A PID of another namespace is some stranger's here.
bool in_this_pid_namespace(const echo_instance& identity);

/// True if its times since the boot mean the same here (time_namespaces(7)).
bool in_this_time_namespace(const echo_instance& identity);

/// Opens its process, which is of this PID namespace (pidfd_open(2)); ESRCH if it is gone.
Fd open_process_of(const echo_instance& identity);

/// True if its process is known to be gone. The kernel can keep its program: for a moment if somebody looks at it, and for
/// as long as somebody has pinned its link.
bool has_ended(const echo_instance& identity);

/// All of them; those that are only starting are left out. Throws std::system_error; EPERM if the calling process is
/// not allowed to look, which needs CAP_SYS_ADMIN.
std::vector<RunningServer> find_running_servers();

/// How many sk_lookup programs, of whatever kind, are attached to that network namespace; 0 if the kernel does not tell.
/// Needs CAP_NET_ADMIN only.
std::size_t attached_programs();

}  // namespace echo_server
