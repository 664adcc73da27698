// SPDX-License-Identifier: BSD-2-Clause
// Two servers under mixed load for SOAK_MINUTES minutes. The first server stays, and is reloaded all the time; the
// second is reloaded and replaced all the time. No client may notice, and nothing may be left behind.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <string>
#include <thread>
#include <utility>

#include "load.h"
#include "support/server.h"

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

/// A server, and the replaced servers before it, which drain.
class Relay {
 public:
    Relay(const Network& network, Command arguments) : network_(network), arguments_(std::move(arguments)) {
        servers_.emplace_back(network_.vm, arguments_);
        arguments_.emplace_back("--replace");
    }

    Server& current() { return servers_.back(); }

    void replace() {
        servers_.emplace_back(network_.vm, arguments_);
        ++replacements_;
        while (servers_.size() > 3) end_oldest();
    }

    /// Waits for the end of all replaced servers, and stops the last server.
    void finish() {
        while (servers_.size() > 1) end_oldest();
        current().signal(SIGTERM);
        end_oldest();
    }

    [[nodiscard]] int replacements() const { return replacements_; }

 private:
    void end_oldest() {
        CHECK(servers_.front().wait() == 0);
        CHECK(servers_.front().output().ends_with("\nstopped\n"));  // it cut off no connection
        servers_.pop_front();
    }

    const Network& network_;
    Command arguments_;
    std::list<Server> servers_;
    int replacements_ = 0;
};

/// Both servers, their work, and its results.
class Soak {
 public:
    /// Puts both servers under load for this time, while both are reloaded and the second is replaced; the load ends
    /// with it.
    void run(std::chrono::seconds duration);
    /// Stops both servers, and looks for leftovers.
    void finish();

    /// Memory and descriptors of the first server, when nobody is connected.
    [[nodiscard]] long memory_kb() const { return steady_.status_kb("VmRSS"); }
    [[nodiscard]] std::ptrdiff_t descriptors() const { return descriptors_of(steady_); }

 private:
    void reload(bool right);
    void report();

    Network steady_network_;
    Network relay_network_;
    TempFile file_{"7\n"};
    Command arguments_{"--ports-file", file_.path(), "--threads", "2", "--drain-timeout", "3600"};
    Server steady_{steady_network_.vm, arguments_};
    Relay relay_{relay_network_, arguments_};
    const steady_clock::time_point start_ = steady_clock::now();
    unsigned reloads_ = 0;
    std::uint64_t connections_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t failures_ = 0;
};

void Soak::reload(bool right) {
    file_.write(right ? fmt::format("7,{}-{}\n", 1000 + reloads_ % 500, 2000 + reloads_ % 700) : "7\nten\n");
    for (auto* server : {&steady_, &relay_.current()}) {
        CHECK(server->reload().starts_with(right ? "reloaded " : "echo-server: "));
        ++reloads_;
    }
}

void Soak::run(std::chrono::seconds duration) {
    const auto end = steady_clock::now() + duration;
    auto next_replacement = steady_clock::now();
    auto next_report = steady_clock::now() + 60s;
    std::list<MixedLoad> loads;
    loads.emplace_back(steady_network_);
    loads.emplace_back(relay_network_);
    for (int i = 1; steady_clock::now() < end; ++i) {
        reload(i % 10 != 0);
        if (steady_clock::now() >= next_replacement) {
            file_.write("7\n");
            relay_.replace();
            next_replacement += 2s;
        }
        if (steady_clock::now() >= next_report) {
            report();
            next_report += 60s;
        }
        std::this_thread::sleep_for(100ms);
    }
    for (auto& load : loads) {
        load.finish();
        CAPTURE(load.first_failure());
        CHECK(load.failures() == 0);
        CHECK(load.bytes() > 0);
        connections_ += load.connections();
        bytes_ += load.bytes();
        failures_ += load.failures();
    }
    CHECK(eventually([&] { return status_shows(steady_network_.vm, "  0 open of at most "); }));
    report();
}

void Soak::report() {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(steady_clock::now() - start_);
    fmt::print(
        "{:5} s: {} reloads, {} replacements; so far ended: {} connections, {} MB checked, {} failures; {} kB, {} "
        "descriptors\n",
        seconds.count(), reloads_, relay_.replacements(), connections_, bytes_ / 1'000'000, failures_, memory_kb(),
        descriptors());
    std::fflush(stdout);
}

void Soak::finish() {
    relay_.finish();
    steady_.signal(SIGTERM);
    CHECK(steady_.wait() == 0);
    CHECK(nothing_left(steady_network_.vm));
    CHECK(nothing_left(relay_network_.vm));
}

}  // namespace

TEST_CASE("soak") {
    const char* minutes = std::getenv("SOAK_MINUTES");
    REQUIRE(minutes != nullptr);
    const std::chrono::seconds duration = std::chrono::minutes(std::stoi(minutes));
    const auto first_part = std::min<std::chrono::seconds>(60s, duration / 2);
    Soak soak;
    soak.run(first_part);
    const auto memory = soak.memory_kb();
    const auto descriptors = soak.descriptors();
    soak.run(duration - first_part);
    CHECK(soak.memory_kb() <= memory + memory / 20);
    CHECK(soak.descriptors() == descriptors);
    soak.finish();
}

}  // namespace echo_server
