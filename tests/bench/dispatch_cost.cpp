// SPDX-License-Identifier: BSD-2-Clause
// The cost of the dispatch program in the kernel's search for a listener: nanoseconds more than an empty sk_lookup
// program, by BPF_PROG_TEST_RUN (Documentation/bpf/bpf_prog_run.rst). Prints 'METRIC,VALUE' lines. Ends with exit code
// 1 if a run finds the wrong socket. Run it as root, in a network namespace of its own.
#include <bpf/bpf.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <list>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "base/os.h"
#include "dispatch/dispatcher.h"
#include "net/address.h"
#include "net/port_set.h"
#include "net/sockets.h"

using namespace echo_server;

namespace {

using std::chrono::steady_clock;

constexpr int rounds = 301;  // each runs every program in turn: the machine's speed drifts
constexpr __u32 repetitions = 10'000;

Fd load_empty_program() {
    const std::array program{
        bpf_insn{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .src_reg = 0, .off = 0, .imm = SK_PASS},
        bpf_insn{.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    };
    bpf_prog_load_opts options{};
    options.sz = sizeof(options);
    options.expected_attach_type = BPF_SK_LOOKUP;
    Fd fd(bpf_prog_load(BPF_PROG_TYPE_SK_LOOKUP, "empty", "BSD", program.data(), program.size(), &options));
    if (!fd) throw std::system_error(errno, std::generic_category(), "loading the empty program");
    return fd;
}

// Nanoseconds of a run, for a client that dials `port`. Throws if the program does not pass, or if it assigns another
// socket than the socket with `cookie` (0: none).
double run(int program, std::uint16_t port, std::uint64_t cookie) {
    bpf_sk_lookup client{};
    client.family = AF_INET;
    client.protocol = IPPROTO_TCP;
    client.remote_ip4 = htonl(INADDR_LOOPBACK);
    client.local_ip4 = htonl(INADDR_LOOPBACK);
    client.local_port = port;
    bpf_sk_lookup found{};
    bpf_test_run_opts options{};
    options.sz = sizeof(options);
    options.ctx_in = &client;
    options.ctx_size_in = sizeof(client);
    options.ctx_out = &found;
    options.ctx_size_out = sizeof(found);
    options.repeat = static_cast<int>(repetitions);
    // Our clock, because the kernel's figure is in whole nanoseconds.
    const auto start = steady_clock::now();
    const int error = bpf_prog_test_run_opts(program, &options);
    const std::chrono::duration<double, std::nano> took = steady_clock::now() - start;
    if (error != 0) throw std::system_error(-error, std::generic_category(), "running a program");
    if (options.retval != SK_PASS) throw std::runtime_error(fmt::format("port {}: it was dropped", port));
    if (found.cookie != cookie)
        throw std::runtime_error(fmt::format("port {}: socket {} was assigned, not {}", port, found.cookie, cookie));
    return took.count() / repetitions;
}

// The dispatch program, with its listener and this number of open ports.
class Dispatch {
 public:
    explicit Dispatch(const char* ports) : listener_(open_listener(parse_endpoint("127.0.0.1:0"))) {
        PortList list;
        list.add(ports);
        dispatcher_.set_listener(listener_.get());
        dispatcher_.set_ports(list.ports());
        program_ = Fd(bpf_prog_get_fd_by_id(dispatcher_.publish({}).program));
        if (!program_) throw std::system_error(errno, std::generic_category(), "opening the dispatch program");
    }

    [[nodiscard]] int program() const { return program_.get(); }
    [[nodiscard]] std::uint64_t cookie() const { return socket_cookie(listener_.get()); }

 private:
    Fd listener_;
    Dispatcher dispatcher_;
    Fd program_;
};

struct Case {
    std::string name;
    int program;
    std::uint16_t port;
    std::uint64_t cookie;
    std::vector<double> over_empty;  // ns, one for each round
};

double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

void measure() {
    const Fd empty = load_empty_program();
    const Dispatch few("7,77,777");
    const Dispatch all("1-65535");
    const Dispatch all_but_one("1-65535,!22");
    std::list<Case> cases{
        {"3 ports: not ours", few.program(), 22, 0, {}},
        {"65534 ports: not ours", all_but_one.program(), 22, 0, {}},
        {"3 ports: ours", few.program(), 777, few.cookie(), {}},
        {"65535 ports: ours", all.program(), 777, all.cookie(), {}},
    };
    std::vector<double> empty_runs;
    for (int round = 0; round < rounds; ++round) {
        const double nothing = run(empty.get(), 22, 0);
        empty_runs.push_back(nothing);
        for (auto& row : cases) row.over_empty.push_back(run(row.program, row.port, row.cookie) - nothing);
    }
    fmt::print("empty program ns,{:.1f}\n", median(empty_runs));
    for (auto& row : cases) fmt::print("{} ns,{:.1f}\n", row.name, median(row.over_empty));
}

}  // namespace

int main() {
    try {
        measure();
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "dispatch-cost: {}\n", error.what());
        return 1;
    }
}
