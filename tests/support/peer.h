// SPDX-License-Identifier: BSD-2-Clause
// Programs that take connections, and do something other than a plain echo.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/os.h"
#include "support/client.h"
#include "support/netns.h"
#include "support/storm.h"

namespace echo_server {

/// Takes the connections to a port, each in a thread of its own. The destructor waits until they end.
class Peer {
 public:
    /// Talks with a client, and closes the connection, or leaves that to the Peer.
    using Serve = std::function<void(Fd& client)>;

    /// At 127.0.0.1. `window` is the room for bytes that nobody reads, in bytes; the kernel makes it larger if it is
    /// very small.
    Peer(const Netns& netns, std::uint16_t port, Serve serve, int window = 1 << 20);
    Peer(Fd listener, Serve serve);

 private:
    void accept_one();

    Serve serve_;
    Fd listener_;
    std::vector<std::jthread> connections_;
    Storm accepts_;
};

/// Listens on a port of 127.0.0.1, and takes no connection: its backlog is full.
class FullListener {
 public:
    FullListener(const Netns& netns, std::uint16_t port);

 private:
    Fd listener_;
    Client waiting_;
};

// For Peer::Serve. Each call on a connection gives up after the time limit, or once the client has ended it.

/// Receives exactly `size` bytes, or fewer if the client ends.
std::string receive_from(const Fd& client, std::size_t size);

/// Returns false once the client takes no more.
bool tell(const Fd& client, std::string_view bytes);

/// Echoes, in pieces of at most `piece` bytes, until the client ends or `limit` bytes were sent back.
void echo_back(const Fd& client, std::size_t piece = 65536, std::size_t limit = SIZE_MAX);

/// Takes and forgets all bytes until the client's end.
void wait_for_end(const Fd& client);

/// Ends the connection by a RST.
void end_by_reset(Fd& client);

}  // namespace echo_server
