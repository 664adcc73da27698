/* SPDX-License-Identifier: BSD-2-Clause */
/* What the program, the server and 'status' share. 'status' and --replace read echo_instance and echo_socket of other
 * versions, too. So only append fields to echo_instance. In the map of an older version they are read as 0, which must
 * mean unknown. The other maps are not read unless they have the sizes of this version. */
#pragma once

#include <linux/types.h>

/* Why the program dropped a connection attempt to one of our ports. The keys of the map echo_drops, whose values count
 * attempts. */
enum echo_drop {
    ECHO_DROP_NO_SOCKET,    /* echo_socket is empty: no socket can answer */
    ECHO_DROP_NOT_ASSIGNED, /* the kernel refused the socket, for example an IPv4 socket for an IPv6 client */
    ECHO_DROP_REASONS,
};

/* Key of the map echo_addresses (BPF_MAP_TYPE_LPM_TRIE). `bits` is the length of the prefix, including `family`. */
struct echo_prefix {
    __u32 bits;
    __u32 family;     /* AF_INET or AF_INET6 */
    __u8 address[16]; /* in network byte order; the first 4 bytes for AF_INET */
};

/* The one value of the map echo_instance: which process serves. The server writes and freezes it before it attaches its
 * program and drops its privileges, so an attacker in the server can't change what root reads here. */
struct echo_instance {
    __u64 netns;           /* inode of the network namespace */
    __u64 pid_namespace;   /* inode of the PID namespace in which pid means this process */
    __u64 started;         /* CLOCK_BOOTTIME, ns */
    __u64 max_connections; /* at this limit, new connections wait in the backlog */
    __u32 pid;             /* in the server's own PID namespace; 0: not a server, or not yet */
    __s32 listener;        /* descriptor of the listening socket in that process */
    __s32 replaced_event;  /* descriptor of an eventfd in that process: its replacement writes to it */
    char version[20];      /* ends with 0 */
    __u64 started_wall;    /* CLOCK_REALTIME at the start, ns; 0: not known */
    __u64 process_start;   /* field 22 of /proc/PID/stat, as a later process can have the same PID; 0: not known */
};

/* Why a port is not open, although it is in a range of the port list. */
enum echo_left_out {
    ECHO_NOT_LEFT_OUT,
    ECHO_LEFT_OUT_TAKEN, /* another program listens there */
    ECHO_LEFT_OUT_HOSTS, /* the host uses it as a local port of its own connections */
};

/* The values of the map echo_port_stats, by port. The program writes `lookups`, the server the others. SIGUSR2 resets
 * all but `left_out`. Connections to the listening socket's own address, such as health checks, count at port 0. They
 * do not show that clients can reach the server. So 'status' leaves port 0 out, also from the sum of `lookups`. */
struct echo_port_stats {
    __u64 lookups;  /* that got the socket. 'status' calls them attempts, and JSON calls their sum attempts.steered */
    __u64 accepted; /* connections; without those that were closed for lack of memory */
    __u64 echoed;   /* connections on which the server has sent back at least one byte */
    __u64 left_out; /* enum echo_left_out */
    __u64 received; /* bytes; an open connection adds its bytes once a second, here and in `sent` */
    __u64 sent;     /* bytes */
};

#define ECHO_MAX_THREADS 1024 /* also the limit of values in the map echo_counters */

/* The values of the map echo_counters, one for each thread of the server, and written only by it. They never fall. Only
 * sums over all threads have a meaning: the first thread counts every connection in its `accepted`, and the thread that
 * served the connection counts it in its own `ended`. Connections to the socket's own address count, too.
 * While the fields fit into 64 bytes, the size stays: a field that an older server does not have reads as 0. */
struct echo_counters {
    __u64 ended;     /* connections; stays first: a reader copies it first, so it never sees ended > accepted */
    __u64 accepted;  /* connections */
    __u64 refused;   /* accepted connections that were closed at once for lack of memory */
    __u64 timed_out; /* accepted connections that --idle-timeout ended, or whose client acknowledged nothing */
    __u64 received;  /* bytes */
    __u64 sent;      /* bytes */
} __attribute__((aligned(64)));
