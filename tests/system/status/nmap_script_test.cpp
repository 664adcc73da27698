// SPDX-License-Identifier: BSD-2-Clause
// What nmap reports by scripts/tcp-echo.nse, of echo-server and of others who answer in its place.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <regex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/os.h"
#include "net/address.h"
#include "net/sockets.h"
#include "support/client.h"
#include "support/nmap.h"
#include "support/server.h"

namespace echo_server {

namespace {

constexpr auto address = "127.0.0.1";

// Calls `serve` with each connection to a port, one after the other, and then waits for the client's end, unless
// `serve` has closed the connection.
class OddServer {
 public:
    using Serve = std::function<void(Fd&)>;

    OddServer(const Netns& netns, std::uint16_t port, Serve serve) : serve_(std::move(serve)) {
        const Netns::Entered entered(netns);
        listener_ = open_listener(parse_endpoint(fmt::format("{}:{}", address, port)));
        thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
    }

 private:
    void run(const std::stop_token& stop) const {
        while (!stop.stop_requested()) {
            pollfd ready{.fd = listener_.get(), .events = POLLIN, .revents = 0};
            if (::poll(&ready, 1, 20) <= 0) continue;
            Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!client) continue;
            serve_(client);
            std::array<char, 4096> buffer{};
            while (::recv(client.get(), buffer.data(), buffer.size(), 0) > 0) continue;
        }
    }

    Serve serve_;
    Fd listener_;
    std::jthread thread_;
};

void say(const Fd& client, const std::string& text) { ::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL); }

// Echoes the first `size` bytes, and takes no more.
void echo(const Fd& client, std::size_t size) {
    std::array<char, 4096> buffer{};
    while (size > 0) {
        const auto count = ::recv(client.get(), buffer.data(), std::min(size, buffer.size()), 0);
        if (count <= 0) return;
        say(client, std::string(buffer.data(), static_cast<std::size_t>(count)));
        size -= static_cast<std::size_t>(count);
    }
}

void reset(Fd& client) {
    const linger at_once{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    client = Fd();
}

std::string scan(const Netns& netns, const Command& arguments) {
    Command command{"--script", TCP_ECHO_NSE};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return nmap(netns, command);
}

// What the script says of a port; "" if it says nothing.
std::string said_of(int port, const std::string& output) {
    std::smatch match;
    const std::regex pattern(fmt::format(R"((^|\n){}/tcp[^\n]*\n\|_tcp-echo: ([^\n]*))", port));
    return std::regex_search(output, match, pattern) ? match[2].str() : "";
}

// Whether it says that `first` and `rest` came in place of the echo, after so many bytes of it. By chance, `first` can
// be the very byte that was due.
bool tells_other(const std::string& said, std::size_t bytes, const std::string& first, const std::string& rest) {
    const auto as_expected = bytes == 0 ? "no echo: something else came"
                                        : fmt::format("no whole echo: something else came after {} bytes", bytes);
    const auto a_byte_later = fmt::format("no whole echo: something else came after {} bytes", bytes + 1);
    return said == fmt::format("{}: \"{}{}\"", as_expected, first, rest) ||
           said == fmt::format("{}: \"{}\"", a_byte_later, rest);
}

bool is(const std::string& said, const std::string& pattern) { return std::regex_match(said, std::regex(pattern)); }

}  // namespace

TEST_CASE("nmap script: verifies echo-server, on both families, with each kind of scan, size and timing") {
    const Network network;
    const Server server(network.vm, {"--ports", "1-20"});
    struct Case {
        Command arguments;
        std::string says;
    };
    const std::string ip4 = Network::vm_ip4;
    const std::vector<Case> cases = {
        {{"-sT", ip4}, R"(echo verified \(64 bytes, \d+ ms\))"},
        {{"-sS", "-T5", ip4}, R"(echo verified \(64 bytes, \d+ ms\))"},
        {{"-sT", "-T2", "--scan-delay", "0", ip4}, R"(echo verified \(64 bytes, \d+ ms\))"},
        {{"-sT", "-6", Network::vm_ip6}, R"(echo verified \(64 bytes, \d+ ms\))"},
        {{"-sT", "--script-args", "tcp-echo.size=1", ip4}, R"(echo verified \(1 bytes, \d+ ms\))"},
        {{"-sT", "--script-args", "tcp-echo.size=65536,tcp-echo.timeout=1m", ip4},
         R"(echo verified \(65536 bytes, \d+ ms\))"},
    };
    for (const auto& [arguments, says] : cases) {
        Command command{"-p", "1-21"};
        command.insert(command.end(), arguments.begin(), arguments.end());
        const auto output = scan(network.host, command);
        CAPTURE(output);
        for (int port = 1; port <= 20; ++port) CHECK(is(said_of(port, output), says));
        CHECK(said_of(21, output).empty());
    }
    const auto xml = scan(network.host, {"-sT", "-p", "7", "-oX", "-", ip4});
    CHECK(std::regex_search(xml, std::regex("<script id=\"tcp-echo\" output=\"echo verified \\(64 bytes, \\d+ ms\\)\">"
                                            "<elem key=\"verified\">true</elem>\\s*<elem key=\"sent\">64</elem>\\s*"
                                            "<elem key=\"received\">64</elem>\\s*<elem key=\"ms\">\\d+</elem>")));
}

TEST_CASE("nmap script: says what came instead of an echo") {
    const Netns netns;
    std::list<OddServer> others;
    const auto add = [&](std::uint16_t port, OddServer::Serve serve) {
        others.emplace_back(netns, port, std::move(serve));
    };
    add(101, [](const Fd&) {});
    add(102, [](const Fd& client) { say(client, "SSH-2.0-OpenSSH_9.2\r\nmore\r\n"); });
    add(103, [](Fd& client) {
        echo(client, 100);
        reset(client);
    });
    add(104, [](const Fd& client) {
        echo(client, 100);
        ::shutdown(client.get(), SHUT_WR);
    });
    add(105, [](const Fd& client) { echo(client, 100); });
    add(106, [](const Fd& client) {
        echo(client, 100);
        say(client, "\x1b[31mnow for something else");
    });
    add(107, [](const Fd& client) {
        std::string bytes(1000, '\0');
        ::recv(client.get(), bytes.data(), bytes.size(), MSG_WAITALL);
        say(client, bytes + "!");
    });
    add(108, [](Fd& client) {
        std::array<char, 10> few{};
        ::recv(client.get(), few.data(), few.size(), 0);
        reset(client);
    });
    add(109, [](const Fd& client) { say(client, "\r|_tcp-echo: echo verified (64 bytes, 1 ms)"); });

    // 110 is closed: the script says nothing.
    const auto output =
        scan(netns, {"-sT", "-p", "101-110", "--script-args", "tcp-echo.size=1000,tcp-echo.timeout=3s", address});
    CAPTURE(output);
    CHECK(is(said_of(101, output), "no echo: silence for \\d+ ms"));
    CHECK(tells_other(said_of(102, output), 0, "S", "SH-2.0-OpenSSH_9.2"));
    CHECK(said_of(103, output) == "no whole echo: reset after 100 of 1000 bytes");
    CHECK(said_of(104, output) == "no whole echo: closed after 100 of 1000 bytes");
    CHECK(is(said_of(105, output), "no whole echo: 100 of 1000 bytes in \\d+ ms"));
    CHECK(tells_other(said_of(106, output), 100, "\\x1B", "[31mnow for something else"));
    CHECK(said_of(107, output) == "no whole echo: something else came after 1000 bytes: \"!\"");
    CHECK(said_of(108, output) == "no echo: reset after 0 of 1000 bytes");
    CHECK(tells_other(said_of(109, output), 0, "\\x0D", "|_tcp-echo: echo verified (64 bytes, 1 ms)"));
    CHECK(said_of(110, output).empty());
    CHECK(output.find("110/tcp closed") != std::string::npos);
}

TEST_CASE("nmap script: an argument that is wrong is said, and nothing is sent") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto said_with = [&](const std::string& argument) {
        return said_of(7, scan(netns, {"-sT", "-p", "7", "--script-args", argument, address}));
    };
    for (const std::string size : {"0", "65537", "1.5", "many"})
        CHECK(said_with("tcp-echo.size=" + size) ==
              fmt::format("tcp-echo.size: '{}' is not allowed here: write a whole number from 1 to 65536", size));
    for (const std::string timeout : {"0", "soon", "5z"})
        CHECK(
            said_with("tcp-echo.timeout=" + timeout) ==
            fmt::format("tcp-echo.timeout: '{}' is not allowed here: write a time such as 500ms, 10s or 1m", timeout));
    CHECK(status_shows(netns, "  echoed       none\n"));
}

TEST_CASE("nmap script: nmap finds its documentation") {
    const Netns netns;
    const auto help = run_ok(netns, {"nmap", "--script-help", TCP_ECHO_NSE});
    CHECK(help.find("\ntcp-echo\nCategories: discovery intrusive\n") != std::string::npos);
}

}  // namespace echo_server
