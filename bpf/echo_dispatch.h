/* SPDX-License-Identifier: BSD-2-Clause */
/* What the dispatch program and the server both must know. */
#pragma once

/* Why the program dropped a connection attempt to a port of ours: the keys of the map echo_drops, whose values
 * count attempts. */
enum echo_drop {
    ECHO_DROP_NO_SOCKET,    /* echo_socket is empty: nobody is there to answer */
    ECHO_DROP_NOT_ASSIGNED, /* the kernel refused the socket, say an IPv4-only one for an IPv6 client */
    ECHO_DROP_REASONS,
};
