// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/os.h"
#include "probe/probe.h"

namespace echo_server {

/// What happened on a port, as its client sees it.
enum class Verdict : std::uint8_t {
    echoed,       ///< all bytes came back
    altered,      ///< other bytes came back
    cut,          ///< a reset or an end before all bytes came back
    silent,       ///< connected, then no more bytes until the timeout
    refused,      ///< a reset in answer to the SYN
    unreachable,  ///< an ICMP error in answer to the SYN
    filtered,     ///< no answer to the SYN
    not_probed,   ///< the probe was ended early
};

struct PortResult {
    Verdict verdict = Verdict::not_probed;
    std::uint8_t tries = 0;
    std::uint64_t sent = 0;  ///< bytes given to the kernel, in all tries
    std::string detail;      ///< printable, such as "reset after 0 of 4096 bytes", or ""
};

/// By port, 65,536 of them.
using Results = std::vector<PortResult>;

/// Of more ports than this, only a sample, spread over all, gets the tests that would cost too much on each.
constexpr std::size_t many_ports = 1000;
constexpr std::size_t sample_of_many = 256;

struct Pace {
    std::size_t at_once;  ///< connections
    bool is_strict;       ///< `at_once` includes connections that wait longer than usual for an answer
    double rate;          ///< connects a second, at most
};

/// Connects to ports of one host, sends a payload on each, and expects it back.
class Scan {
 public:
    using Clock = std::chrono::steady_clock;
    /// Called often, with the time since the run began; false ends the run.
    using Progress = std::function<bool(std::size_t done, std::size_t all, std::chrono::duration<double> time)>;

    /// Throws std::runtime_error if there are too few descriptors.
    Scan(asio::ip::address address, std::string_view payload, const ProbeOptions& options, Progress progress);

    /// Tries each of `ports` once. A try without an answer does not overwrite the result of an earlier one. Returns
    /// false if the run was ended. Throws std::runtime_error for an error of this host, which is not a result.
    bool run(std::span<const std::uint16_t> ports, const Pace& pace);

    [[nodiscard]] const Results& results() const { return results_; }

 private:
    enum class Phase : std::uint8_t { none, connecting, exchanging, holding, ending };

    struct Connection {
        Fd socket;
        std::uint16_t port = 0;
        Phase phase = Phase::none;
        bool is_check = false;    // checks the way to the host, not the port
        bool is_waiting = false;  // does not count as one of Pace::at_once
        bool is_polite = false;   // closes its side, and waits for the peer's end
        bool was_held = false;
        std::uint32_t sent = 0;
        std::uint32_t received = 0;
        Clock::time_point started;   // the phase of connecting, or of exchanging
        Clock::time_point deadline;  // of the phase, or for its next byte
    };

    // Returns whether more may be started now.
    bool start_some();
    void start(std::uint16_t port, bool is_check);
    void handle(Connection& connection, std::uint32_t events);
    void fail_to_connect(Connection& connection, int error);
    void begin_exchange(Connection& connection);
    void send(Connection& connection);
    void receive(Connection& connection, int error);
    void take(Connection& connection, std::string_view bytes);
    void progressed(Connection& connection);
    // After this time, an answer is late.
    [[nodiscard]] std::chrono::nanoseconds usual_wait() const;
    void set_waiting(Connection& connection, bool is_waiting);
    void sweep();
    void time_out(Connection& connection);
    [[nodiscard]] std::string progress_of(const Connection& connection) const;
    void ended(Connection& connection, int error);
    void finish(Connection& connection, Verdict verdict, std::string detail = {});
    void close(Connection& connection);

    asio::ip::address address_;
    std::string_view payload_;
    const ProbeOptions& options_;
    Progress progress_;
    Results results_{65536};
    Fd epoll_;
    std::vector<char> buffer_ = std::vector<char>(65536);
    std::vector<Connection> connections_;  // by descriptor
    std::size_t max_open_;
    std::size_t open_ = 0;
    std::size_t waiting_ = 0;

    // Of a run.
    std::span<const std::uint16_t> ports_;
    Pace pace_{};
    std::size_t next_ = 0;  // index in ports_
    std::size_t done_ = 0;
    Clock::time_point now_;
    Clock::time_point next_start_;

    // What is known of the way to the host.
    std::chrono::nanoseconds answer_time_{20'000'000};  // of a connect, smoothed
    std::size_t unanswered_ = 0;                        // connects in a row
    std::size_t silent_ = 0;                            // exchanges without a byte since one came late
    std::uint16_t answering_port_ = 0;                  // the last that accepted a connection; 0: none
    int failed_checks_ = 0;
};

}  // namespace echo_server
