// SPDX-License-Identifier: BSD-2-Clause
/* Steers new TCP connections for the ports in echo_ports to the one socket in echo_socket. The kernel runs this program
 * when a packet needs a listening socket, before its own search (Documentation/bpf/prog_sk_lookup.rst). SK_PASS without
 * an assigned socket starts that search, so a connection that is not ours goes on as if there were no program. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "echo_dispatch.h"

#define AF_INET 2 /* <sys/socket.h> is not for BPF */

/* bpf/README.md says what the maps hold. This one has sizes instead of BTF types: with types, 'bpftool map dump' would
 * need root to read the BTF. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(key_size, sizeof(__u16));
    __uint(value_size, sizeof(__u8));
} echo_ports SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} echo_socket SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, ECHO_DROP_REASONS);
    __type(key, __u32);
    __type(value, __u64);
} echo_drops SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct echo_port_stats);
} echo_port_stats SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 1024);
    __uint(map_flags, BPF_F_NO_PREALLOC); /* the kernel demands it of tries */
    __type(key, struct echo_prefix);
    __type(value, __u8);
} echo_addresses SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct echo_instance);
} echo_instance SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct echo_counters);
} echo_counters SEC(".maps");

/* True with --address. The server sets it before it loads the program: if it is 0, the kernel removes the code that
 * depends on it. */
const volatile __u8 restrict_addresses = 0;

static int drop(enum echo_drop reason) {
    __u32 key = reason;
    __u64* count = bpf_map_lookup_elem(&echo_drops, &key);

    if (count) __sync_fetch_and_add(count, 1);
    return SK_DROP;
}

static bool is_our_address(const struct bpf_sk_lookup* ctx) {
    struct echo_prefix key = {.family = ctx->family};

    if (ctx->family == AF_INET) {
        __u32 address = ctx->local_ip4;
        key.bits = 32 + 32;
        __builtin_memcpy(key.address, &address, sizeof(address));
    } else {
        __u32 address[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2], ctx->local_ip6[3]};
        key.bits = 32 + 128;
        __builtin_memcpy(key.address, address, sizeof(address));
    }
    return bpf_map_lookup_elem(&echo_addresses, &key);
}

SEC("sk_lookup")
int echo_dispatch(struct bpf_sk_lookup* ctx) {
    /* The kernel asks for UDP, too: a UDP service may use the same port number. */
    if (ctx->protocol != IPPROTO_TCP) return SK_PASS;

    __u16 port = ctx->local_port;
    if (!bpf_map_lookup_elem(&echo_ports, &port)) return SK_PASS;
    if (restrict_addresses && !is_our_address(ctx)) return SK_PASS;

    /* The connection is ours. If there is no socket, drop it: SK_PASS could give it to another listener. */
    __u32 key = 0;
    struct bpf_sock* socket = bpf_map_lookup_elem(&echo_socket, &key);
    if (!socket) return drop(ECHO_DROP_NO_SOCKET);

    /* A connection to the socket's own address counts at port 0: see echo_port_stats. */
    const bool own = port == socket->src_port && ctx->family == AF_INET && ctx->local_ip4 == socket->src_ip4;
    /* With REPLACE the program that was attached last wins. Without it the first wins, and the others get EEXIST. */
    const long error = bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_REPLACE);
    bpf_sk_release(socket);
    if (error) return drop(ECHO_DROP_NOT_ASSIGNED);

    key = own ? 0 : port;
    struct echo_port_stats* reached = bpf_map_lookup_elem(&echo_port_stats, &key);
    if (reached) __sync_fetch_and_add(&reached->lookups, 1);
    return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
