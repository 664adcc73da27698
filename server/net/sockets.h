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

/// Opens the listening socket, with the longest backlog that the kernel allows. `address` is an IPv4 address or [::],
/// because at another IPv6 address the socket would serve only IPv6. On a host with IPv6, the dispatch program can give
/// the socket connections of both families; without the program it is reachable only at `address`. Accepted sockets
/// inherit its options: SO_LINGER (close(2) sends a reset), limits of the buffers, probes of idle peers, TCP_NODELAY,
/// and SO_OOBINLINE (urgent data is echoed, too). Needs CAP_NET_ADMIN. Throws std::runtime_error.
Fd open_listener(const asio::ip::tcp::endpoint& address);

/// Throws what open_listener() would throw for `address`, but does not listen.
void check_address(const asio::ip::tcp::endpoint& address);

/// Sets the options and the backlog of `socket`, and makes it listen. Another process may have opened it, perhaps of
/// another version or with other sysctls. Needs CAP_NET_ADMIN. Throws std::runtime_error.
Fd adopt_listener(Fd socket);

/// For messages about a listener that does not listen any more.
constexpr std::string_view why_not_listening =
    "the listening socket was destroyed from outside (for example by 'ss -K')";

/// Whether a socket listens. False after it was shut down or destroyed.
bool is_listening(int fd);

/// The kernel's number of a socket, or 0 if `fd` is not a socket. 'ss -e' shows it after "sk:", and a dump of the map
/// echo_socket shows it.
std::uint64_t socket_cookie(int fd);

/// The address and port that a socket is bound to. For an accepted socket: those that the client connected to.
asio::ip::tcp::endpoint local_endpoint(int fd);

/// Whether `socket` belongs to another network namespace than the calling thread. False if that is not known.
bool is_of_another_netns(const Fd& socket);

/// A listening TCP socket, as the kernel's socket diagnostics show it (sock_diag(7)).
struct ListeningSocket {
    asio::ip::tcp::endpoint local;
    bool both_families = false;  ///< an IPv6 socket that serves IPv4 as well
    std::uint64_t cookie = 0;    ///< as SO_COOKIE returns it
    std::uint32_t inode = 0;     ///< as in "socket:[INODE]" in /proc/PID/fd
    std::uint32_t waiting = 0;   ///< connections in the accept queue
    std::uint32_t backlog = 0;   ///< limit of that queue
    std::uint32_t dropped = 0;   ///< connection attempts that the kernel dropped, for example at a full queue
};

/// All listening TCP sockets of both families in the network namespace of the calling thread. Throws
/// std::runtime_error if the kernel does not list them.
std::vector<ListeningSocket> listening_sockets();

/// Those of `prefixes` at which this network namespace takes no connections, because they overlap with none of its
/// addresses and with no other route of type local (ip-route(8)). Empty if the kernel does not list the routes.
std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes);

/// Makes a TCP socket of `family` keep the ICMP errors that it gets (IP_RECVERR in ip(7)). Needs no privilege.
void keep_icmp_errors(int socket, int family);
/// Whether this kernel keeps them for a socket that is still connecting. Linux does since 5.8.
bool keeps_icmp_errors();
/// Takes one of them, such as "ICMP port unreachable from 192.0.2.1", or "" if there is none.
std::string take_icmp_error(int socket);

}  // namespace echo_server
