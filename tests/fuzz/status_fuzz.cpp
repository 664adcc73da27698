// SPDX-License-Identifier: BSD-2-Clause
// Real BPF maps as an older, newer or broken server may leave them: 'status' reads only what it understands, and prints
// well-formed text.
#include <bpf/bpf.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "dispatch/instances.h"
#include "expect.h"
#include "status/status.h"

namespace echo_server {

namespace {

/// A map of the shape that a server of this version makes.
struct Shape {
    const char* name;
    bpf_map_type type;
    __u32 key_size;
    __u32 value_size;
    __u32 max_entries;
};

constexpr std::array shapes = {
    Shape{"echo_instance", BPF_MAP_TYPE_ARRAY, 4, sizeof(echo_instance), 1},
    Shape{"echo_counters", BPF_MAP_TYPE_ARRAY, 4, sizeof(echo_counters), 2},
    Shape{"echo_port_stats", BPF_MAP_TYPE_ARRAY, 4, sizeof(echo_port_stats), 64},
    Shape{"echo_drops", BPF_MAP_TYPE_ARRAY, 4, 8, ECHO_DROP_REASONS},
    Shape{"echo_addresses", BPF_MAP_TYPE_LPM_TRIE, sizeof(echo_prefix), 1, 16},
    Shape{"echo_ports", BPF_MAP_TYPE_HASH, 2, 1, 64},
    Shape{"echo_socket", BPF_MAP_TYPE_SOCKMAP, 4, 8, 1},
};

constexpr std::array other_types = {
    BPF_MAP_TYPE_ARRAY,       BPF_MAP_TYPE_HASH,     BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_PERCPU_ARRAY,
    BPF_MAP_TYPE_PERCPU_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_SOCKMAP,  BPF_MAP_TYPE_SOCKHASH,
    BPF_MAP_TYPE_QUEUE,       BPF_MAP_TYPE_STACK,    BPF_MAP_TYPE_RINGBUF,  BPF_MAP_TYPE_BLOOM_FILTER,
};

constexpr std::array states = {
    Instance::State::serving, Instance::State::socketless, Instance::State::detached,
    Instance::State::waiting, Instance::State::draining,
};

void distort(Shape& shape, FuzzedDataProvider& data) {
    switch (data.ConsumeIntegralInRange(0, 7)) {
        case 0: shape.type = data.PickValueInArray(other_types); break;
        case 1: shape.key_size = data.ConsumeIntegralInRange<__u32>(0, 32); break;
        case 2: shape.value_size = data.ConsumeIntegralInRange<__u32>(0, 512); break;
        case 3: shape.max_entries = data.ConsumeIntegralInRange<__u32>(1, 70000); break;
        default: break;
    }
}

Fd make_map(const Shape& shape, FuzzedDataProvider& data) {
    bpf_map_create_opts options{};
    options.sz = sizeof(options);
    const bool preallocated = shape.type != BPF_MAP_TYPE_LPM_TRIE;
    options.map_flags = preallocated ? 0 : BPF_F_NO_PREALLOC;
    Fd map(bpf_map_create(shape.type, shape.name, shape.key_size, shape.value_size, shape.max_entries, &options));
    if (!map) return map;
    for (int entries = data.ConsumeIntegralInRange(0, 4); entries > 0; --entries) {
        auto key = data.ConsumeBytes<std::uint8_t>(shape.key_size);
        key.resize(std::max<std::size_t>(shape.key_size, 4));
        if (shape.type == BPF_MAP_TYPE_ARRAY)
            std::fill(key.begin() + 1, key.end(), 0);  // otherwise hardly any key would exist
        auto value = data.ConsumeBytes<std::uint8_t>(shape.value_size);
        value.resize(std::size_t{shape.value_size} * 256);  // the kernel copies a value for each CPU
        bpf_map_update_elem(map.get(), key.data(), value.data(), BPF_ANY);
    }
    return map;
}

bool is_text(const std::string& text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); });
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
    const rlimit unlimited{.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    ::setrlimit(RLIMIT_MEMLOCK, &unlimited);
    // A fuzzer that can't make maps would find nothing, and would look clean.
    FuzzedDataProvider nothing(nullptr, 0);
    for (const auto& shape : shapes) expect(static_cast<bool>(make_map(shape, nothing)));
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
    FuzzedDataProvider data(bytes, size);
    Instance server{.program = 1, .state = data.PickValueInArray(states), .maps = {}, .identity = {}};
    for (auto shape : shapes) {
        if (data.ConsumeIntegralInRange(0, 15) == 0) continue;
        distort(shape, data);
        MapHandle map{make_map(shape, data), {}};
        __u32 info_size = sizeof(map.info);
        if (map.fd && bpf_obj_get_info_by_fd(map.fd.get(), &map.info, &info_size) == 0)
            server.maps.push_back(std::move(map));
    }
    server.identity = read_identity(server).value_or(echo_instance{});
    const std::vector<Status> all{read_status(server, {})};
    expect(is_text(to_text(all)));
    expect(is_text(to_port_table(all)));
    expect(is_text(to_prometheus(all)));
    const auto json = to_json(all);
    expect(is_text(json));
    expect(nlohmann::json::parse(json)["instances"].size() == 1);
    return 0;
}

}  // namespace echo_server
