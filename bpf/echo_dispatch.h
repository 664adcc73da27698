/* SPDX-License-Identifier: BSD-2-Clause */
/* What the program, the server and 'status' share. 'status' and --replace also read echo_instance and echo_socket of
 * other versions. So fields are only appended, and a missing field is 0, which means unknown. */
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

/* The values of the map echo_port_stats, by port. The program writes the first one, the server the others. SIGUSR2
 * resets all but `left_out`. Connections to the listening socket's own address, such as health checks, count at port 0,
 * because they do not show that the port is reachable. */
struct echo_port_stats {
    __u64 lookups;  /* lookups that got the socket */
    __u64 accepted; /* connections; without those that were closed for lack of memory */
    __u64 echoed;   /* connections on which the server has sent back at least one byte */
    __u64 left_out; /* enum echo_left_out */
    __u64 received; /* bytes; those of the last second may be missing for an open connection, here and in `sent` */
    __u64 sent;     /* bytes */
};

#define ECHO_MAX_THREADS 1024 /* also the limit of values in the map echo_counters */

/* The values of the map echo_counters, one for each thread of the server. Only that thread writes it, in the map's
 * memory. The numbers never fall. Only sums over all threads have a meaning: the first thread counts a connection in
 * `accepted`, the thread that served it counts it in `ended`. */
struct echo_counters {
    __u64 ended;     /* connections; first, so that a reader, which copies it first, never sees ended > accepted */
    __u64 accepted;  /* connections */
    __u64 refused;   /* of these, those closed at once for lack of memory */
    __u64 timed_out; /* of these, those ended by --idle-timeout, or because the client acknowledged nothing */
    __u64 received;  /* bytes */
    __u64 sent;      /* bytes */
} __attribute__((aligned(64)));
