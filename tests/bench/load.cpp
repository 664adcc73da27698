// SPDX-License-Identifier: BSD-2-Clause
// Puts an echo server under load from one thread, checks every byte of the echo, and prints the cost as 'METRIC,VALUE'
// lines. Ends with exit code 1 if anything but the echo came back.
#include <fmt/format.h>
#include <sys/epoll.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <exception>
#include <set>
#include <string>
#include <vector>

#include "base/os.h"
#include "load_client.h"
#include "net/address.h"
#include "process_usage.h"

using namespace echo_server;

namespace {

using std::chrono::duration;
using std::chrono::steady_clock;

constexpr std::chrono::seconds patience{15};
constexpr std::size_t shortest_backlog = 10;  // of all measured servers

struct Settings {
    std::string workload;
    std::size_t connections = 50;
    double seconds = 2;
    std::size_t operations = 0;  // 0: for some seconds
    double warm_up = 0.3;
    pid_t server = 0;
    Work work;
};

class Load {
 public:
    // Makes the connections. The first clients hold their second message back until the last client has been served: a
    // server that forks for each client would not get to it.
    explicit Load(const Settings& settings) : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        while (clients_.size() < settings.connections) {
            clients_.emplace_back(settings.work, clients_.size(), epoll_.get());
            clients_.back().start();
            if (clients_.size() % shortest_backlog == 0) run_until_served();
        }
        run_until_served();
    }

    void go_on() {
        for (auto& client : clients_) client.go_on();
    }

    // Goes on with the load for `time`; returns the finished work.
    Tally run(duration<double> time) {
        const auto end = steady_clock::now() + time;
        return run_until([end](const Tally&) { return steady_clock::now() >= end; });
    }

    // The same, until `enough` returns true for the finished work.
    template <typename Enough>
    Tally run_until(Enough enough) {
        Tally tally;
        tally.latencies.reserve(1U << 21U);
        while (!enough(tally)) {
            const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), 1);
            for (int i = 0; i < count; ++i) {
                const auto& event = events_[static_cast<std::size_t>(i)];
                clients_[event.data.u64].handle(event.events, tally);
            }
        }
        operations_ += tally.operations;
        bytes_ += tally.bytes;
        return tally;
    }

    // Since the beginning.
    [[nodiscard]] std::uint64_t operations() const { return operations_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
    void run_until_served() {
        const auto end = steady_clock::now() + patience;
        for (;;) {
            const auto waiting = std::count_if(clients_.begin(), clients_.end(), [](auto& c) { return !c.served(); });
            if (waiting == 0) return;
            if (steady_clock::now() > end)
                throw std::runtime_error(fmt::format("{} of {} clients were not served", waiting, clients_.size()));
            run(duration<double>(0.001));
        }
    }

    Fd epoll_;
    std::deque<LoadClient> clients_;
    std::array<epoll_event, 256> events_{};
    std::uint64_t operations_ = 0;
    std::uint64_t bytes_ = 0;
};

double percentile_us(std::vector<std::uint32_t>& latencies, double part) {
    if (latencies.empty()) return 0;
    const auto place = static_cast<std::size_t>(part * static_cast<double>(latencies.size() - 1));
    const auto at = latencies.begin() + static_cast<std::ptrdiff_t>(place);
    std::nth_element(latencies.begin(), at, latencies.end());
    return *at / 1e3;
}

void measure(const Settings& settings) {
    Load load(settings);
    load.go_on();
    load.run(duration<double>(settings.warm_up));
    const auto cpu_before = cpu_time(settings.server);
    const auto start = steady_clock::now();
    auto tally = load.run(duration<double>(settings.seconds));
    const duration<double> took = steady_clock::now() - start;
    const duration<double, std::micro> cpu = cpu_time(settings.server) - cpu_before;
    if (tally.operations == 0) throw std::runtime_error("not one operation was completed");
    const auto operations = static_cast<double>(tally.operations);
    fmt::print("operations/s,{:.1f}\n", operations / took.count());
    fmt::print("MB/s,{:.3f}\n", static_cast<double>(tally.bytes) / 1e6 / took.count());
    fmt::print("server CPU us/operation,{:.4f}\n", cpu.count() / operations);
    fmt::print("server CPU %,{:.1f}\n", cpu.count() / 1e4 / took.count());
    fmt::print("p50 us,{:.1f}\n", percentile_us(tally.latencies, 0.5));
    fmt::print("p99 us,{:.1f}\n", percentile_us(tally.latencies, 0.99));
    fmt::print("p99.9 us,{:.1f}\n", percentile_us(tally.latencies, 0.999));
}

// Does a fixed amount of work, while another program counts what the server does. Prints all that was done, also the
// clients' first messages.
void do_operations(const Settings& settings) {
    Load load(settings);
    load.go_on();
    load.run_until([&](const Tally& done) { return done.operations >= settings.operations; });
    fmt::print("operations,{}\nbytes,{}\n", load.operations(), load.bytes());
}

// The cost of idle connections, after each has been served a message. As many others begin first, and do not count:
// they get memory that was used and freed at the start.
void measure_idle(const Settings& settings) {
    const auto at_start = resident_memory(settings.server);
    const Load uncounted(settings);
    const auto before = resident_memory(settings.server);
    const Load counted(settings);
    const auto after = resident_memory(settings.server);
    fmt::print("resident kB at start,{}\n", at_start / 1000);
    fmt::print("resident bytes/connection,{}\n", (after - before) / settings.connections);
}

Settings parse(int argc, char** argv) {
    Settings settings;
    std::vector<std::string> targets;
    CLI::App app("Puts an echo server under load and prints what that cost.", "echo-load");
    const std::set<std::string> workloads{"messages", "stream", "connections", "idle"};
    app.add_option("workload", settings.workload, "messages, stream, connections, or idle")
        ->required()
        ->check([&](const std::string& name) { return workloads.contains(name) ? "" : "there is no such workload"; });
    app.add_option("target", targets, "Where to connect to, in turn")->required()->type_name("ADDR:PORT");
    app.add_option("--server", settings.server, "Whose CPU time and memory to show")->required()->type_name("PID");
    app.add_option("--clients", settings.connections, "Connections at a time (50)")->type_name("N");
    app.add_option("--size", settings.work.message, "Bytes in a message (64)")->type_name("BYTES");
    app.add_option("--seconds", settings.seconds, "How long to measure (2)");
    app.add_option("--operations", settings.operations, "End after as many, and measure nothing")->type_name("N");
    app.add_option("--warm-up", settings.warm_up, "Seconds of load before that, once every client was served (0.3)");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        std::exit(app.exit(error) == 0 ? 0 : 2);
    }
    for (const auto& target : targets) settings.work.targets.push_back(parse_endpoint(target));
    settings.work.keep_sending = settings.workload == "stream";
    settings.work.one_message_each = settings.workload == "connections";
    return settings;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        const auto settings = parse(argc, argv);
        raise_descriptor_limit();
        if (settings.workload == "idle")
            measure_idle(settings);
        else if (settings.operations > 0)
            do_operations(settings);
        else
            measure(settings);
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "echo-load: {}\n", error.what());
        return 1;
    }
}
