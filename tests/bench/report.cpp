// SPDX-License-Identifier: BSD-2-Clause
// Makes the tables of scripts/bench: reads its results.csv from standard input, writes Markdown to standard output, and
// writes the data for bench.gnuplot to the given file.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "results.h"

namespace {

struct Name {
    std::string_view id;  // in results.csv
    std::string_view label;
};

constexpr std::array workloads{
    Name{"messages-50", "64-byte messages, 50 clients"},
    Name{"messages-1000", "64-byte messages, 1,000 clients"},
    Name{"stream", "stream of 64 KiB, 4 clients"},
    Name{"connections", "connect, echo, close, 50 clients"},
};
constexpr std::string_view ours = "echo-server";
constexpr std::string_view ours_all_ports = "echo-server-65535";
constexpr std::string_view floor_dispatch = "epoll-dispatch";
constexpr std::string_view floor_direct = "epoll-direct";
constexpr std::array rivals{
    Name{ours, "echo-server"},
    Name{ours_all_ports, "echo-server, 65,535 ports open"},
    Name{floor_dispatch, "the floor: epoll, behind dispatch"},
    Name{floor_direct, "the floor, listening directly"},
    Name{"asio-echo", "Asio's example (1 KiB buffers)"},
    Name{"asio-echo-64k", "Asio's example (64 KiB buffers)"},
    Name{"xinetd", "xinetd, internal"},
    Name{"socat", "socat, PIPE"},
    Name{"ncat", "ncat, cat"},
};
constexpr std::array others{"asio-echo", "asio-echo-64k", "xinetd", "socat", "ncat"};

// Workloads of echo-server and one floor.
struct Pair {
    std::string_view id;
    std::string_view label;
    std::string_view floor;
};
constexpr std::array pairs{
    Pair{"messages-10000", "64-byte messages, 10,000 clients", floor_dispatch},
    Pair{"veth-messages-50", "veth: 64-byte messages, 50 clients", "epoll-ipv4"},
    Pair{"veth-messages-1000", "veth: 64-byte messages, 1,000 clients", "epoll-ipv4"},
    Pair{"veth-stream", "veth: stream of 64 KiB, 4 clients", "epoll-ipv4"},
    Pair{"veth-connections", "veth: connect, echo, close, 50 clients", "epoll-ipv4"},
};

struct Metric {
    std::string_view id;
    bool higher_is_better;
};
constexpr std::string_view cpu = "server CPU us/operation";
constexpr std::array metrics{Metric{cpu, false}, Metric{"operations/s", true}, Metric{"p50 us", false},
                             Metric{"p99 us", false}, Metric{"p99.9 us", false}};

void print_cpu_table(const Results& results) {
    fmt::print("CPU time of the server, us for each operation; behind it, relative to the floor behind dispatch:\n\n|");
    for (const auto& workload : workloads) fmt::print(" | {}", workload.label);
    fmt::print(" |\n|---|---|---|---|---|\n");
    for (const auto& rival : rivals) {
        fmt::print("| {}", rival.label);
        for (const auto& workload : workloads) {
            const auto failure = results.failures.find({std::string(workload.id), std::string(rival.id)});
            const auto& series = results.of(workload.id, rival.id, cpu);
            if (failure != results.failures.end())
                fmt::print(" | fails: {}", failure->second);
            else if (series.empty())
                fmt::print(" | ");
            else
                fmt::print(" | {}; {}", median_of(series),
                           text_of(ratio(series, results.of(workload.id, floor_dispatch, cpu))));
        }
        fmt::print(" |\n");
    }
}

void print_pairs(const Results& results) {
    fmt::print(
        "\nThe same beside one floor: with 10,000 clients the floor behind dispatch; over a veth pair a floor that "
        "listens directly, on IPv4:\n\n| workload | echo-server | the floor | ratio |\n|---|---|---|---|\n");
    for (const auto& [id, label, floor] : pairs) {
        const auto& series = results.of(id, ours, cpu);
        const auto& base = results.of(id, floor, cpu);
        fmt::print("| {} | {} | {} | {} |\n", label, median_of(series), median_of(base), text_of(ratio(series, base)));
        for (const auto& [who, why] : results.failures)
            if (who.first == id) fmt::print("| {} | {} fails: {} | | |\n", label, who.second, why);
    }
}

bool is_compared(std::string_view workload) {
    const auto is_it = [&](const auto& name) { return name.id == workload; };
    return std::ranges::any_of(workloads, is_it) || std::ranges::any_of(pairs, is_it);
}

std::optional<Name> best_other(const Results& results, std::string_view workload, const Metric& metric) {
    std::optional<Name> best;
    double best_median = 0;
    for (const auto& rival : rivals) {
        if (std::ranges::find(others, rival.id) == others.end()) continue;
        if (results.failures.contains({std::string(workload), std::string(rival.id)})) continue;
        const auto all = spread(results.of(workload, rival.id, metric.id));
        if (!all) continue;
        if (best && (metric.higher_is_better ? all->median <= best_median : all->median >= best_median)) continue;
        best = rival;
        best_median = all->median;
    }
    return best;
}

void print_comparison(const Results& results) {
    fmt::print(
        "\necho-server beside the others; ratios are of its figure to theirs:\n\n"
        "| workload | measure | echo-server | to the floor behind dispatch | to the floor listening directly | to "
        "the best of the others | which is |\n|---|---|---|---|---|---|---|\n");
    for (const auto& workload : workloads)
        for (const auto& metric : metrics) {
            const auto& series = results.of(workload.id, ours, metric.id);
            const auto to = [&](std::string_view rival) {
                return text_of(ratio(series, results.of(workload.id, rival, metric.id)));
            };
            const auto best = best_other(results, workload.id, metric);
            fmt::print("| {} | {} | {} | {} | {} | {} | {} |\n", workload.label, metric.id, median_of(series),
                       to(floor_dispatch), to(floor_direct), best ? to(best->id) : "-", best ? best->label : "-");
        }
}

// All figures outside the workloads above.
void print_rest(const Results& results) {
    fmt::print("\n| what | of | figure |\n|---|---|---|\n");
    for (const auto& metric : metrics)
        fmt::print("| connections, {} | 65,535 ports open, relative to 3 | {} |\n", metric.id,
                   text_of(ratio(results.of("connections", ours_all_ports, metric.id),
                                 results.of("connections", ours, metric.id))));
    for (const auto& key : results.order) {
        const auto& [workload, rival, metric] = key;
        if (is_compared(workload)) continue;
        fmt::print("| {}, {} | {} | {} |\n", workload, metric, rival, text_of(spread(results.values.at(key))));
    }
    for (const auto& [who, why] : results.failures)
        if (!is_compared(who.first)) fmt::print("| {} | {} | fails: {} |\n", who.first, who.second, why);
}

bool is_drawn(const Name& rival) { return rival.id != floor_dispatch && rival.id != ours_all_ports; }

// A row for each workload, a column for each rival: CPU time relative to the floor behind dispatch.
void write_plot_data(const Results& results, std::ostream& file) {
    file << "workload";
    for (const auto& rival : rivals)
        if (is_drawn(rival)) file << '\t' << rival.label;
    for (const auto& workload : workloads) {
        file << '\n' << workload.label;
        for (const auto& rival : rivals) {
            if (!is_drawn(rival)) continue;
            const bool fails = results.failures.contains({std::string(workload.id), std::string(rival.id)});
            const auto relative =
                ratio(results.of(workload.id, rival.id, cpu), results.of(workload.id, floor_dispatch, cpu));
            file << '\t' << (relative && !fails ? fmt::format("{:.4f}", relative->median) : "NaN");
        }
    }
    file << '\n';
}

}  // namespace

int main(int argc, char** argv) {
    try {
        if (argc != 2)
            throw std::runtime_error("give a file for the data of the plot; results.csv comes by standard input");
        const auto results = read(std::cin);
        print_cpu_table(results);
        print_pairs(results);
        print_comparison(results);
        print_rest(results);
        std::ofstream plot(argv[1]);
        write_plot_data(results, plot);
        if (!plot.flush()) throw std::runtime_error(fmt::format("writing {}", argv[1]));
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "bench-report: {}\n", error.what());
        return 1;
    }
}
