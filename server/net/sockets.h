// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "net/address.h"

namespace echo_server {

/// Opens the listening socket, with the longest backlog that the kernel allows. `address` is an IPv4 address or [::]:
/// on another IPv6 address the socket would serve IPv6 alone. Where the host has IPv6, the dispatch program can give
/// the socket connections of both families; without the program it is reachable at `address` alone. Accepted sockets
/// inherit its options: SO_LINGER, by which close(2) resets the client; limits of their buffers; probes of idle peers;
/// TCP_NODELAY; SO_OOBINLINE, as urgent data is data. Needs CAP_NET_ADMIN. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);

/// Throws what open_listener() would throw, and listens nowhere.
void check_address(const asio::ip::tcp::endpoint& address);

/// Sets the options and the backlog of `socket`, which another process has opened by open_listener(), perhaps of
/// another version or under other sysctls, and lets it listen. Needs CAP_NET_ADMIN. Throws std::runtime_error.
Fd adopt_listener(Fd socket);

/// What is said of a listener that does not listen any more.
constexpr std::string_view why_not_listening =
    "the listening socket was destroyed from outside (for example by 'ss -K')";

/// Whether a socket listens; false once it was shut down or destroyed.
bool is_listening(int fd);

/// The number that names a socket: 'ss -e' shows it behind "sk:", and a dump of echo_socket has it. 0 if `fd` is not
/// a socket.
std::uint64_t socket_cookie(int fd);

/// The address and port that a socket is bound to; of an accepted socket, what the client dialled.
asio::ip::tcp::endpoint local_endpoint(int fd);

/// True if `socket` is known to belong to another network namespace than the calling thread.
bool is_of_another_netns(const Fd& socket);

/// A listening TCP socket, as the kernel's socket diagnostics show it (sock_diag(7)).
struct ListeningSocket {
    asio::ip::tcp::endpoint local;
    bool both_families = false;  ///< an IPv6 socket that serves IPv4 as well
    std::uint64_t cookie = 0;    ///< as SO_COOKIE returns it
    std::uint32_t inode = 0;     ///< as in "socket:[INODE]" in /proc/PID/fd
    std::uint32_t waiting = 0;   ///< connections in the accept queue
    std::uint32_t backlog = 0;   ///< limit of that queue
    std::uint32_t dropped = 0;   ///< connection attempts that the kernel dropped, for want of room or another reason
};

/// All listening TCP sockets of both families in the network namespace of the calling thread. Throws
/// std::runtime_error if the kernel can't tell.
std::vector<ListeningSocket> listening_sockets();

/// Those of `prefixes` at which this network namespace takes no connection, because none of its addresses, nor another
/// route of type local (ip-route(8)), overlaps with them. None if the kernel can't tell.
std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes);

/// Lets a TCP socket of `family` keep the ICMP errors that it gets (IP_RECVERR in ip(7)); takes no privilege.
void keep_icmp_errors(int socket, int family);
/// Whether this kernel does so for a socket that is connecting: since Linux 5.8.
bool keeps_icmp_errors();
/// Takes one of them: "ICMP port unreachable from 192.0.2.1", or "" if there is none.
std::string take_icmp_error(int socket);

}  // namespace echo_server
