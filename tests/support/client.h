// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/os.h"
#include "support/netns.h"
#include "support/storm.h"

namespace echo_server {

/// A TCP client with blocking calls that give up after the time limit.
class Client {
 public:
    /// Connects from `netns` to a numeric IPv4 or IPv6 address. error() has the result.
    Client(const Netns& netns, const std::string& address, std::uint16_t port);

    /// errno of the first call that failed, or 0. A connection closed early counts as ENODATA.
    [[nodiscard]] int error() const { return error_; }
    [[nodiscard]] int fd() const { return fd_.get(); }

    void send(std::string_view data, int flags = 0);
    /// Receives exactly `size` bytes, or fewer if a call fails.
    std::string receive(std::size_t size);
    /// True if the server has sent its FIN and nothing before it.
    bool at_end();
    void shutdown_write();

 private:
    Fd fd_;
    int error_ = 0;
};

/// A client whose connection the server has accepted: a byte has come back. Fails the test otherwise.
Client connected(const Netns& netns, std::uint16_t port, const std::string& address = "127.0.0.1");

/// Ends the connection by a RST instead of a FIN.
void reset(Client client);

/// errno of connect(): 0, ECONNREFUSED, ETIMEDOUT.
int try_connect(const Netns& netns, const std::string& address, std::uint16_t port);

/// `size` bytes that only `client` sends, each piece with its place: so a test notices bytes that are lost, moved, or
/// of another client.
std::string bytes_of(char client, std::size_t size);

/// True if the server sends `text` back, and closes after our FIN. False in every other case.
bool echoes(const Netns& netns, const std::string& address, std::uint16_t port, std::string_view text = "hello\n");

/// Another service: answers each TCP connection, or each UDP datagram, with its name. Runs on a thread of its own.
class NamedServer {
 public:
    enum class Protocol { tcp, udp };
    NamedServer(const Netns& netns, Protocol protocol, const std::string& address, std::uint16_t port,
                std::string name);

    [[nodiscard]] int fd() const { return socket_.get(); }

 private:
    void answer() const;

    Protocol protocol_;
    std::string name_;
    Fd socket_;
    Storm answers_;
};

/// The answer from there: all bytes until the end (TCP), or one datagram (UDP), or "nobody".
std::string who_answers(const Netns& netns, NamedServer::Protocol protocol, const std::string& address,
                        std::uint16_t port);

}  // namespace echo_server
