// SPDX-License-Identifier: BSD-2-Clause
/* Steers new TCP connections for the ports in echo_ports to the one socket in echo_socket.
 *
 * The kernel runs this program whenever a packet needs a listening socket, before it looks for one itself
 * (Documentation/bpf/prog_sk_lookup.rst). SK_PASS without an assigned socket leaves that search to the kernel, so
 * whatever is not ours is served as if the program were not there. */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "echo_dispatch.h"

/* The ports that are open, in host byte order; the value means nothing. Every key that fits finds room. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, __u16);
    __type(value, __u8);
} echo_ports SEC(".maps");

/* The listening socket. User space writes its file descriptor and reads back its cookie. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} echo_socket SEC(".maps");

/* Connection attempts that were ours and could not be served, by enum echo_drop. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, ECHO_DROP_REASONS);
    __type(key, __u32);
    __type(value, __u64);
} echo_drops SEC(".maps");

static int drop(enum echo_drop reason) {
    __u32 key = reason;
    __u64* count = bpf_map_lookup_elem(&echo_drops, &key);

    if (count) __sync_fetch_and_add(count, 1);
    return SK_DROP;
}

static void release(struct bpf_sock** socket) {
    if (*socket) bpf_sk_release(*socket);
}

SEC("sk_lookup")
int echo_dispatch(struct bpf_sk_lookup* ctx) {
    /* UDP lookups come here as well; a UDP service may use the same port number. */
    if (ctx->protocol != IPPROTO_TCP) return SK_PASS;

    __u16 port = ctx->local_port;
    if (!bpf_map_lookup_elem(&echo_ports, &port)) return SK_PASS;

    /* From here on the port is ours. Passing would hand the client to whatever else listens there: drop instead. */
    __u32 key = 0;
    struct bpf_sock* socket __attribute__((cleanup(release))) = bpf_map_lookup_elem(&echo_socket, &key);
    if (!socket) return drop(ECHO_DROP_NO_SOCKET);

    /* REPLACE lets the program that was attached last win; without it the oldest would, and the rest get EEXIST. */
    if (bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_REPLACE)) return drop(ECHO_DROP_NOT_ASSIGNED);
    return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
