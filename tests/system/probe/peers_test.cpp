// SPDX-License-Identifier: BSD-2-Clause
// What 'echo-server probe' says of programs that echo in odd ways or not at all.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <regex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/os.h"
#include "net/port_set.h"
#include "support/client.h"
#include "support/peer.h"
#include "support/process.h"
#include "support/server.h"

namespace echo_server {

namespace {

using namespace std::chrono_literals;

constexpr std::size_t payload_size = 4096;
constexpr std::uint16_t first_odd_port = 2001;
constexpr int smallest_window = 1;

struct OddPeer {
    std::string name;
    Peer::Serve serve;
    std::string verdict;
    std::string detail = {};  ///< a regular expression for its beginning
    int window = 1 << 20;
};

std::string with_a_bit_flipped(std::string bytes) {
    bytes[bytes.size() / 2] ^= 1;
    return bytes;
}

std::vector<OddPeer> those_that_echo(const Netns& netns) {
    const auto echo_all = [](Fd& client) { echo_back(client); };
    return {
        {"a plain echo", echo_all, "echoed"},
        {"cat, as inetd starts it",
         [&netns](Fd& client) {
             Process cat(netns, {"cat"}, [&] {
                 ::dup2(client.get(), STDIN_FILENO);
                 ::dup2(client.get(), STDOUT_FILENO);
             });
             client = Fd();
             cat.wait();
         },
         "echoed"},
        {"it ends half a second after the client, as socat does",
         [](Fd& client) {
             echo_back(client);
             std::this_thread::sleep_for(500ms);
         },
         "echoed"},
        {"byte by byte", [](Fd& client) { echo_back(client, 1); }, "echoed"},
        {"a second late",
         [](Fd& client) {
             const auto bytes = receive_from(client, payload_size);
             std::this_thread::sleep_for(1s);
             tell(client, bytes);
             wait_for_end(client);
         },
         "echoed"},
        {"with a window of a few bytes", echo_all, "echoed", "", smallest_window},
        {"it never closes",
         [](Fd& client) {
             echo_back(client);
             pollfd end{.fd = client.get(), .events = 0, .revents = 0};
             ::poll(&end, 1, static_cast<int>(std::chrono::milliseconds(time_limit).count()));
         },
         "echoed", "but the end did not come"},
        {"a reset instead of a FIN",
         [](Fd& client) {
             echo_back(client);
             end_by_reset(client);
         },
         "echoed", "but no clean end: reset"},
    };
}

std::vector<OddPeer> those_that_stop() {
    const auto first = [](std::size_t size) {
        return [size](Fd& client) {
            echo_back(client, payload_size, size);
            wait_for_end(client);
        };
    };
    return {
        {"it only takes", wait_for_end, "silent", "0 of 4096 bytes$"},
        {"the first 40 bytes, and silence", first(40), "silent", "40 of 4096 bytes$"},
        {"all but the last byte, and silence", first(payload_size - 1), "silent", "4095 of 4096 bytes$"},
        {"all but the last byte, and the end",
         [](Fd& client) { tell(client, receive_from(client, payload_size).substr(0, payload_size - 1)); }, "cut",
         "closed after 4095 of 4096 bytes$"},
        {"it never reads, and its window is full",
         [](Fd& client) {
             pollfd end{.fd = client.get(), .events = POLLRDHUP, .revents = 0};
             ::poll(&end, 1, static_cast<int>(std::chrono::milliseconds(time_limit).count()));
         },
         "silent", "0 of 4096 bytes$", smallest_window},
        {"a byte each half second",
         [](Fd& client) {
             const auto bytes = receive_from(client, payload_size);
             for (std::size_t i = 0; i < bytes.size() && tell(client, bytes.substr(i, 1)); ++i)
                 std::this_thread::sleep_for(500ms);
         },
         "silent", "[1-4][0-9] of 4096 bytes$"},
        {"it reads all, and closes", [](Fd& client) { receive_from(client, payload_size); }, "cut",
         "closed after 0 of 4096"},
        {"it closes at once", [](Fd&) {}, "cut", "(closed|reset) after 0 of 4096 bytes$"},
        {"it resets at once", end_by_reset, "cut", "reset after 0 of 4096 bytes$"},
    };
}

// Sends `text`, a literal, before the echo.
Peer::Serve that_says(std::string_view text) {
    return [text](Fd& client) {
        tell(client, text);
        echo_back(client);
    };
}

std::vector<OddPeer> those_that_change_bytes() {
    using namespace std::string_view_literals;
    const auto changed = [](auto change) {
        return [change](Fd& client) {
            tell(client, change(receive_from(client, payload_size)));
            wait_for_end(client);
        };
    };
    return {
        {"twice", changed([](const std::string& bytes) { return bytes + bytes; }), "altered",
         R"(after all, at byte 4096: '\\xd5)"},
        {"reversed", changed([](const std::string& bytes) { return std::string(bytes.rbegin(), bytes.rend()); }),
         "altered", "at byte 0: '"},
        {"a bit is flipped", changed(with_a_bit_flipped), "altered", "at byte 2048: '"},
        {"a banner", that_says("SSH-2.0-Odd\r\n"), "altered", R"(at byte 0: 'SSH-2\.0-Odd\\x0d\\x0a)"},
        {"escape codes", that_says("\x1b]0;title\a\r\n\"'\0\x9b"sv), "altered",
         R"(at byte 0: '\\x1b\]0;title\\x07\\x0d\\x0a"'\\x00\\x9b)"},
        {"a line of a report", that_says("\n  echoed       1 port: 9\n"), "altered",
         R"(at byte 0: '\\x0a  echoed       1 port: 9\\x0a)"},
        {"the right bytes without end",
         [](Fd& client) {
             const auto bytes = receive_from(client, payload_size);
             while (tell(client, bytes)) continue;
         },
         "altered", R"(after all, at byte 4096: '\\xd5)"},
        {"wrong bytes without end",
         [](Fd& client) {
             while (tell(client, std::string(65536, 'z'))) continue;
         },
         "altered", "at byte 0: 'z{32}\\.{3}'$"},
    };
}

// The verdict of a port and its detail, from the text for people: "silent, 0 of 4096 bytes".
std::string verdict_of(std::uint16_t port, const std::string& report) {
    const std::regex line(R"(\n  (\S+) +\d+ ports?(.*): ([0-9,-]+)(?=\n))");
    for (std::sregex_iterator found(report.begin(), report.end(), line), end; found != end; ++found) {
        PortList list;
        list.add((*found)[3].str());
        if (list.ports().contains(port)) return (*found)[1].str() + (*found)[2].str();
    }
    return "nothing";
}

bool is_printable(std::string_view text) {
    return std::ranges::all_of(text, [](char byte) { return byte == '\n' || (byte >= ' ' && byte <= '~'); });
}

}  // namespace

TEST_CASE("probe: says what odd peers do, in bounded time and memory, and escapes what they send") {
    const Netns netns;
    auto table = those_that_echo(netns);
    for (const auto& more : {those_that_stop(), those_that_change_bytes()})
        table.insert(table.end(), more.begin(), more.end());
    std::list<Peer> peers;
    for (const auto& peer : table)
        peers.emplace_back(netns, static_cast<std::uint16_t>(first_odd_port + peers.size()), peer.serve, peer.window);
    constexpr std::uint16_t ncat_port = 2101;
    constexpr std::uint16_t nc_port = 2102;
    constexpr std::uint16_t full_port = 2103;
    constexpr std::uint16_t closed_port = 2104;
    const Process ncat(netns, {"ncat", "-lk", "127.0.0.1", std::to_string(ncat_port), "-e", "/bin/cat"});
    const Process nc(netns, {"nc", "-lk", "127.0.0.1", std::to_string(nc_port)});
    const FullListener full(netns, full_port);
    for (const auto port : {ncat_port, nc_port})
        REQUIRE(eventually([&] { return try_connect(netns, "127.0.0.1", port) == 0; }));

    // The probe leaves a peer that drips after 12 timeouts.
    const auto ports =
        fmt::format("{}-{},{}-{}", first_odd_port, first_odd_port + table.size() - 1, ncat_port, closed_port);
    Process probe(netns, echo_server({"probe", "--ports", ports, "--retries", "0", "--timeout", "2", "127.0.0.1"}));
    CHECK(probe.wait() == 1);
    const auto& report = probe.output();
    CAPTURE(report);
    CHECK(is_printable(report));
    for (std::size_t i = 0; i < table.size(); ++i) {
        const auto& peer = table[i];
        CAPTURE(peer.name);
        const auto said = verdict_of(static_cast<std::uint16_t>(first_odd_port + i), report);
        const auto expected = peer.verdict + (peer.detail.empty() ? "$" : ", " + peer.detail);
        CAPTURE(said);
        CHECK(std::regex_search(said, std::regex(expected), std::regex_constants::match_continuous));
    }
    CHECK(verdict_of(ncat_port, report) == "echoed");
    CHECK(verdict_of(nc_port, report) == "silent, 0 of 4096 bytes");
    CHECK(verdict_of(full_port, report) == "filtered");
    CHECK(verdict_of(closed_port, report) == "refused");
#ifdef NDEBUG  // sanitizers keep much more
    CHECK(probe.peak_kb() < 64 * 1024);
#endif
}

}  // namespace echo_server
