/* SPDX-License-Identifier: BSD-2-Clause */
/* What the program, the server and 'status' must know of each other. Of a server of another version, 'status' and
 * --replace read echo_instance and echo_socket: fields are only ever appended, and a missing field is 0, unknown. */
#pragma once

#include <linux/types.h>

/* Why the program dropped a connection attempt to a port of ours: the keys of the map echo_drops, whose values
 * count attempts. */
enum echo_drop {
    ECHO_DROP_NO_SOCKET,    /* echo_socket is empty: no socket can answer */
    ECHO_DROP_NOT_ASSIGNED, /* the kernel refused the socket, such as an IPv4 socket for an IPv6 client */
    ECHO_DROP_REASONS,
};

/* Key of the map echo_addresses (BPF_MAP_TYPE_LPM_TRIE): `bits` counts from the start of `family`. */
struct echo_prefix {
    __u32 bits;
    __u32 family;     /* AF_INET or AF_INET6 */
    __u8 address[16]; /* in network byte order; the first 4 bytes for AF_INET */
};

/* The one value of the map echo_instance: who serves. The server writes and freezes it before it attaches its program
 * and drops its privileges: a server that is broken into later can't change what root reads here. */
struct echo_instance {
    __u64 netns;           /* inode of the network namespace */
    __u64 pid_namespace;   /* inode of the PID namespace in which pid means this process */
    __u64 started;         /* CLOCK_BOOTTIME, ns */
    __u64 max_connections; /* limit; at the limit, new clients wait in the backlog */
    __u32 pid;             /* as seen in the server's own PID namespace; 0: not a server, or not yet */
    __s32 listener;        /* descriptor of the listening socket in that process */
    __s32 replaced_event;  /* descriptor of an eventfd in that process: the process that takes over writes to it */
    char version[20];      /* ends with 0 */
    __u64 started_wall;    /* CLOCK_REALTIME at the start, ns; 0 if not known */
    __u64 process_start;   /* field 22 of /proc/PID/stat: tells it from a later process with that PID; 0 if not known */
};

/* Why a port is not open though it is in a range of the port list. */
enum echo_left_out {
    ECHO_NOT_LEFT_OUT,
    ECHO_LEFT_OUT_TAKEN, /* another program listens there */
    ECHO_LEFT_OUT_HOSTS, /* the host takes the local ports of its own connections from there */
};

/* The values of the map echo_port_stats, by port. The program writes the first figure, the server writes the
 * others. On SIGUSR2 the server zeroes the figures. What comes to the listening socket's own address, as a health check
 * does, tells nothing of a way to the server: it counts at port 0. */
struct echo_port_stats {
    __u64 lookups;  /* lookups that got the socket */
    __u64 accepted; /* connections; without those refused for want of memory */
    __u64 echoed;   /* connections on which the server has sent back at least one byte */
    __u64 left_out; /* enum echo_left_out */
    __u64 received; /* bytes; of an open connection those of the last second may be missing, here and in `sent` */
    __u64 sent;     /* bytes */
};

#define ECHO_MAX_THREADS 1024 /* and so the limit of values in the map echo_counters */

/* The values of the map echo_counters, one for each thread of the server, which alone writes it, through memory that it
 * shares with the map. They only ever rise. Only the sums over all threads are meaningful: the first thread counts
 * connections in, and the thread that served a connection counts it out. */
struct echo_counters {
    __u64 ended;     /* connections; before `accepted`: a reader copies it first, and never sees more ended */
    __u64 accepted;  /* connections */
    __u64 refused;   /* of these, those closed at once for want of memory */
    __u64 timed_out; /* of these, those ended by --idle-timeout, or as the client acknowledged nothing */
    __u64 received;  /* bytes */
    __u64 sent;      /* bytes */
} __attribute__((aligned(64)));
