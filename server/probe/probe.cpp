// SPDX-License-Identifier: BSD-2-Clause
#include "probe/probe.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/io_context.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <thread>

#include "base/log.h"
#include "base/os.h"
#include "base/text.h"
#include "probe/report.h"
#include "probe/scan.h"

namespace echo_server {

using namespace std::chrono_literals;

namespace {

using Clock = Scan::Clock;
using Ports = std::vector<std::uint16_t>;

volatile std::sig_atomic_t ended_by_user = 0;
unsigned retry = 0;  // for the progress: 0 in the first try

asio::ip::address resolve(const ProbeOptions& options) {
    using asio::ip::tcp;
    asio::io_context io;
    tcp::resolver resolver(io);
    std::error_code error;
    const asio::ip::resolver_base::flags none{};
    // The system's order (RFC 6724): the first is the best.
    const auto found = options.only_v4   ? resolver.resolve(tcp::v4(), options.host, "", none, error)
                       : options.only_v6 ? resolver.resolve(tcp::v6(), options.host, "", none, error)
                                         : resolver.resolve(options.host, "", none, error);
    if (!error && !found.empty()) return found.begin()->endpoint().address();
    throw std::runtime_error(fmt::format("finding the address of {}: {}; give another name, or an address",
                                         quote(options.host), error.message()));
}

std::string output_of(const std::string& command) {
    const auto what = fmt::format("running --status-command {}", quote(command));
    std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "re"), ::pclose);
    if (!pipe) fail(what);
    std::string text;
    std::array<char, 65536> piece{};
    while (const auto size = std::fread(piece.data(), 1, piece.size(), pipe.get())) text.append(piece.data(), size);
    if (::pclose(pipe.release()) != 0) throw std::runtime_error(what + ": it failed; run it in a shell to see why");
    return text;
}

// The server's side, from its status; nothing without --status and --status-command.
std::optional<ServerSide> server_side(const ProbeOptions& options) {
    if (!options.status_command.empty()) return parse_status(output_of(options.status_command));
    if (options.status.empty()) return {};
    std::ifstream file(options.status == "-" ? "/dev/stdin" : options.status);
    std::string text;
    std::getline(file, text, '\0');
    if (file.bad() || !file.is_open()) fail(fmt::format("reading --status {}", quote(options.status)));
    return parse_status(text);
}

// Shows the progress if standard error is a terminal. Returns false once the user has ended the probe.
bool show_progress(std::size_t done, std::size_t all, std::chrono::duration<double> time) {
    static Clock::time_point next;
    if (Clock::now() >= next && ::isatty(STDERR_FILENO) == 1) {
        next = Clock::now() + 200ms;
        const auto rate = static_cast<double>(done) / time.count();
        // Not in the first seconds: most ports may still wait for an answer.
        const auto left =
            done == 0 || time.count() < 3 ? "" : fmt::format(", {:.0f} s left", static_cast<double>(all - done) / rate);
        fmt::print(stderr, "\r{}{} of {} ports, {:.0f} a second{}\x1b[K",
                   retry == 0 ? "" : fmt::format("retry {}: ", retry), done, all, rate, left);
    }
    return ended_by_user == 0;
}

void clear_progress() {
    if (::isatty(STDERR_FILENO) == 1) fmt::print(stderr, "\r\x1b[K");
}

// A score of the ports: an answer of the host counts once, an echo twice. An ICMP error does not count: routers limit
// their rate, so of many such ports each try gets a few, and all tries would take hours.
std::size_t success(const Scan& scan, const Ports& ports) {
    std::size_t sum = 0;
    for (const auto port : ports) {
        const auto verdict = scan.results()[port].verdict;
        sum += (verdict != Verdict::filtered && verdict != Verdict::unreachable ? 1 : 0) +
               (verdict == Verdict::echoed ? 1 : 0);
    }
    return sum;
}

// Retries those of `ports` that have `verdict` after at most `tries` tries. Of many ports, tries a sample first, and
// the others only if the sample does better now. Returns false if the user has ended the probe.
bool try_again(Scan& scan, const Ports& ports, Verdict verdict, unsigned tries, const Pace& pace) {
    Ports failed;
    const auto& results = scan.results();
    const auto has_failed = [&](auto port) { return results[port].verdict == verdict && results[port].tries <= tries; };
    std::ranges::copy_if(ports, std::back_inserter(failed), has_failed);
    if (failed.size() <= many_ports) return scan.run(failed, pace);
    Ports sample;
    for (std::size_t i = 0; i < sample_of_many; ++i) sample.push_back(failed[i * failed.size() / sample_of_many]);
    const auto before = success(scan, sample);
    if (!scan.run(sample, pace)) return false;
    if (success(scan, sample) <= before) return true;
    std::erase_if(failed, [&](auto port) { return std::ranges::binary_search(sample, port); });
    return scan.run(failed, pace);
}

// Returns false if the user has ended the probe.
bool try_all(Scan& scan, const Ports& ports, const ProbeOptions& options) {
    Pace pace{.at_once = options.parallel, .is_strict = false, .rate = options.rate};
    if (!scan.run(ports, pace)) return false;
    pace.is_strict = true;
    for (unsigned tries = 1; tries <= options.retries; ++tries) {
        const auto before = success(scan, ports);
        const auto failed = ports.size() - before / 2;  // at least
        if (before == 2 * ports.size()) break;
        std::this_thread::sleep_for(1s);  // lets rate limits recover
        retry = tries;
        const auto start = Clock::now();
        for (const auto verdict : {Verdict::altered, Verdict::cut, Verdict::silent, Verdict::refused,
                                   Verdict::unreachable, Verdict::filtered})
            if (!try_again(scan, ports, verdict, tries, pace)) return false;
        const auto more = static_cast<double>(success(scan, ports)) - static_cast<double>(before);
        // If so many ports have failed twice in the same way, another try would not help.
        if (more <= 0 && failed >= 16) break;
        pace.at_once = std::max<std::size_t>(pace.at_once / 4, 1);
        // If something limits the rate, half of the rate that got through is safe. But try all within a minute.
        const std::chrono::duration<double> took = Clock::now() - start;
        const auto rate = std::max(more / 4 / std::max(took.count(), 1.0), static_cast<double>(failed) / 60);
        if (more > 0) pace.rate = std::min(rate, options.rate);
    }
    return true;
}

int measure(const ProbeOptions& options) {
    const auto payload = make_payload(options.payload, options.size, options.host);
    const auto address = resolve(options);
    auto server = server_side(options);
    PortSet ports = options.ports.ports();
    if (ports.empty()) {  // or only exclusions
        ports.insert(1, 65535);
        ports = (server ? server->open : ports) - options.ports.excluded();
    }
    ports = ports | options.expect.ports();
    if (ports.empty()) throw std::runtime_error("there is no port to probe: choose others with --ports");

    for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { ended_by_user = 1; });
    const auto start = Clock::now();
    Scan scan(address, payload, options, show_progress);
    Report report{options, address.to_string(), payload.size(), 0, false, ports, scan.results(), server};
    try {
        report.is_complete = try_all(scan, ports.to_vector(), options);
        report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
        if (!options.status_command.empty()) {
            report.server.reset();
            // The server counts a connection's bytes when it ends, or at most a second after its last byte.
            std::this_thread::sleep_for(1500ms);
            report.server = difference(*server, *server_side(options));
        }
    } catch (const std::runtime_error& error) {
        // Print the results so far.
        report.is_complete = false;
        clear_progress();
        log_error("probe: {}", error.what());
        if (std::ranges::all_of(scan.results(), [](const auto& result) { return result.tries == 0; })) return 3;
    }
    clear_progress();
    const auto text = options.json ? report.to_json() : report.to_text();
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (!written && errno != EPIPE) fail("writing the result");
    return !report.is_complete ? 3 : report.is_as_expected() ? 0 : 1;
}

}  // namespace

int probe(const ProbeOptions& options) {
    try {
        return measure(options);
    } catch (const std::exception& error) {
        log_error("probe: {}", error.what());
        return 3;
    }
}

}  // namespace echo_server
