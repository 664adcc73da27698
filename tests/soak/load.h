// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>

#include "support/client.h"
#include "support/netns.h"

namespace echo_server {

/// Clients of every kind, each on a thread of its own, from the host of a network to port 7 of its VM: clients that
/// connect, send and end without a pause, that stream, that are idle, that reset, that read slowly. All check every
/// byte, except the clients that reset.
class MixedLoad {
 public:
    explicit MixedLoad(const Network& network);
    ~MixedLoad() { finish(); }
    MixedLoad(const MixedLoad&) = delete;
    MixedLoad& operator=(const MixedLoad&) = delete;

    /// Ends all connections.
    void finish();

    [[nodiscard]] std::uint64_t connections() const { return connections_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }  ///< that came back unchanged
    [[nodiscard]] std::uint64_t failures() const { return failures_; }
    /// The first error of any client.
    [[nodiscard]] std::string first_failure();

 private:
    using Random = std::minstd_rand;

    void connect_and_end(Random& random);
    void stream(Random& random);
    void be_idle(Random& random);
    void reset_at_once(Random& random);
    void read_slowly(Random& random);

    void start(void (MixedLoad::*kind)(Random&));
    Client connect(Random& random);
    /// Any piece of a long text, of at least `size` bytes.
    std::string_view piece(Random& random, std::size_t size) const;
    void count(const Client& client, std::string_view sent, std::string_view received);
    void end(Client& client);

    const Network& network_;
    std::string text_;
    std::atomic<bool> stop_ = false;
    std::atomic<std::uint64_t> connections_ = 0;
    std::atomic<std::uint64_t> bytes_ = 0;
    std::atomic<std::uint64_t> failures_ = 0;
    std::mutex mutex_;
    std::string first_failure_;
    std::list<std::thread> threads_;
};

}  // namespace echo_server
