/* SPDX-License-Identifier: BSD-2-Clause */
/* A foreign sk_lookup program: it gives packets for its port to its socket, or drops them if it has none. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_SOCKMAP);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} other_socket SEC(".maps");

const volatile __u32 port = 0;

SEC("sk_lookup")
int other_lookup(struct bpf_sk_lookup* ctx) {
    const __u32 key = 0;
    struct bpf_sock* socket;
    long error;

    if (ctx->local_port != port) return SK_PASS;
    socket = bpf_map_lookup_elem(&other_socket, &key);
    if (!socket) return SK_DROP;
    error = bpf_sk_assign(ctx, socket, BPF_SK_LOOKUP_F_REPLACE);
    bpf_sk_release(socket);
    return error ? SK_DROP : SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
