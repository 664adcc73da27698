// SPDX-License-Identifier: BSD-2-Clause
// What nmap reports by scripts/tcp-echo.nse, of echo-server and of other programs on its ports.
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <regex>
#include <set>
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

// A pattern of the script's result in XML, whose first group is the port.
std::string in_xml(const std::string& says, bool verified, int bytes, int tries, const std::string& rest = "") {
    return fmt::format(
        R"x(portid="(\d+)"[^\n]*output="{0}"><elem key="verified">{1}</elem>\s*<elem key="sent">{2}</elem>\s*)x"
        R"x(<elem key="received">{2}</elem>\s*<elem key="ms">\d+</elem>\s*)x"
        R"x(<elem key="tries">{3}</elem>\s*{4}</script>)x",
        says, verified, bytes, tries, rest);
}

// Rules of a firewall before the TCP of the namespace.
void add_rules(const Netns& netns, const std::string& rules) {
    run_ok(netns, {"nft", "table inet firewall { chain in { type filter hook input priority 0; " + rules + "; }; }"});
}

constexpr auto verified = R"(echo verified \(4096 bytes, \d+ ms\))";

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
        {{"-sT", ip4}, verified},
        {{"-sS", "-T5", ip4}, verified},
        {{"-sT", "-T2", "--scan-delay", "0", ip4}, verified},
        {{"-sT", "-6", Network::vm_ip6}, verified},
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
    CHECK(ports_in(xml, in_xml(verified, true, 4096, 1)) == "7");
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
    add(109, [](const Fd& client) { say(client, "\r|_tcp-echo: echo verified (4096 bytes, 1 ms)"); });
    add(111, [](const Fd& client) { say(client, R"x(no such "C:\x41")x"); });

    // 110 is closed: the script says nothing.
    const auto output =
        scan(netns, {"-sT", "-p", "101-111", "--script-args", "tcp-echo.size=1000,tcp-echo.timeout=3s", address});
    CAPTURE(output);
    CHECK(is(said_of(101, output), R"(no echo: silence for \d+ ms \(2 tries\))"));
    CHECK(said_of(102, output) == "no echo: something else came: \"SSH-2.0-OpenSSH_9.2\"");
    CHECK(said_of(103, output) == "no whole echo: reset after 100 of 1000 bytes");
    CHECK(said_of(104, output) == "no whole echo: closed after 100 of 1000 bytes");
    CHECK(is(said_of(105, output), R"(no whole echo: 100 of 1000 bytes in \d+ ms \(2 tries\))"));
    CHECK(said_of(106, output) ==
          "no whole echo: something else came after 100 bytes: \"\\x1B[31mnow for something else\"");
    CHECK(said_of(107, output) == "no whole echo: something else came after 1000 bytes: \"!\"");
    CHECK(said_of(108, output) == "no echo: reset after 0 of 1000 bytes");
    CHECK(said_of(109, output) ==
          "no echo: something else came: \"\\x0D|_tcp-echo: echo verified (4096 bytes, 1 ms)\"");
    CHECK(said_of(111, output) == R"x(no echo: something else came: "no such \"C:\\x41\"")x");
    CHECK(said_of(110, output).empty());
    CHECK(output.find("110/tcp closed") != std::string::npos);
}

TEST_CASE("nmap script: each 256 bytes that it sends have every value once, and all blocks differ") {
    const Netns netns;
    std::string bytes(65536, '\0');
    {
        const OddServer server(netns, 101, [&](const Fd& client) {
            if (::recv(client.get(), bytes.data(), bytes.size(), MSG_WAITALL) > 0) say(client, bytes);
        });
        const auto output = scan(netns, {"-sT", "-p", "101", "--script-args", "tcp-echo.size=65536", address});
        CHECK(is(said_of(101, output), R"(echo verified \(65536 bytes, \d+ ms\))"));
    }
    std::set<std::string> blocks;
    for (std::size_t at = 0; at < bytes.size(); at += 256) {
        const auto block = bytes.substr(at, 256);
        CHECK(std::set<char>(block.begin(), block.end()).size() == 256);
        blocks.insert(block);
    }
    CHECK(blocks.size() == 256);
}

TEST_CASE("nmap script: verifies an echo byte by byte, and an echo at the second try, and names the try") {
    const Netns netns;
    const OddServer slow(netns, 101, [](const Fd& client) {
        const int at_once = 1;
        ::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof(at_once));
        for (int i = 0; i < 4096; ++i) echo(client, 1);
    });
    int tries = 0;  // with bytes, which nmap's scan does not send
    const OddServer silent_first(netns, 102, [&](const Fd& client) {
        char first = 0;
        if (::recv(client.get(), &first, 1, MSG_PEEK) == 1 && ++tries == 2) echo(client, 4096);
    });
    const Server server(netns, {"--ports", "7"});
    // Of three connections to port 7, the first of which is the scan's, the second is refused.
    add_rules(netns, "tcp dport 7 tcp flags & (syn | ack) == syn numgen inc mod 3 1 reject with tcp reset");
    const auto xml =
        scan(netns, {"-sT", "-p", "7,101,102", "--script-args", "tcp-echo.timeout=5s", "-oX", "-", address});
    CAPTURE(xml);
    CHECK(ports_in(xml, in_xml(verified, true, 4096, 1)) == "101");
    CHECK(ports_in(xml, in_xml(R"(echo verified at the second try \(4096 bytes, \d+ ms\))", true, 4096, 2)) == "7,102");
}

TEST_CASE("nmap script: says why there is no connection, though the scan found the port open") {
    const Netns netns;
    const Server server(netns, {"--ports", "7-10"});
    const std::string after_the_scan = "tcp flags & (syn | ack) == syn limit rate over 1/day burst 1 packets";
    add_rules(netns, fmt::format("tcp dport 7 {0} drop; tcp dport 8 {0} reject with tcp reset; "
                                 "tcp dport 9 {0} reject with icmp type host-prohibited",
                                 after_the_scan));
    const auto xml =
        scan(netns, {"-sT", "-p", "7-10", "--script-args", "tcp-echo.timeout=1999.5ms", "-oX", "-", address});
    CAPTURE(xml);
    const auto ports_with = [&](const std::string& reason) {
        const auto says = "no echo: no connection, though the port was open before: " + reason + R"( \(2 tries\))";
        const auto rest = R"(<elem key="ended">no connection</elem>\s*<elem key="reason">)" + reason + R"(</elem>\s*)";
        return ports_in(xml, in_xml(says, false, 0, 2, rest));
    };
    CHECK(ports_with("no answer in 2000 ms") == "7");
    CHECK(ports_with(R"(refused, or ICMP says unreachable \(Nmap does not tell which\))") == "8-9");
    CHECK(ports_in(xml, in_xml(verified, true, 4096, 1)) == "10");
}

TEST_CASE("nmap script: for a link-local address it asks for -e") {
    const Network network;
    const Server server(network.vm, {"--ports", "7"});
    std::string link_local;
    REQUIRE(eventually([&] {
        const auto shown = run_ok(network.vm, {"ip", "-6", "address", "show", "dev", "to-host", "-tentative"});
        std::smatch match;
        if (std::regex_search(shown, match, std::regex("fe80:[0-9a-f:]+"))) link_local = match.str();
        return !link_local.empty();
    }));
    const auto said_with = [&](const Command& arguments) {
        Command command{"-6", "-p", "7"};
        command.insert(command.end(), arguments.begin(), arguments.end());
        return said_of(7, scan(network.host, command));
    };
    CHECK(is(said_with({"-sT", "-e", "to-vm", link_local}), verified));
    CHECK(is(said_with({"-sS", "-e", "to-vm", link_local + "%to-vm"}), verified));
    CHECK(said_with({"-sT", link_local + "%to-vm"}) ==
          "no echo: no connection, though the port was open before: for a link-local address Nmap needs -e INTERFACE "
          "(2 tries)");
}

TEST_CASE("nmap script: a wrong argument is an error, and nothing is sent") {
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
    const Command unknown{"tcp-echo.sizes=5",  "tcp-echo.x", "tcp-echo.x={1,2}",
                          "tcp-echo={size=5}", "tcp-echo",   "tcp-echo.size"};  // the last without its value
    for (const auto& argument : unknown)
        CHECK(said_with(argument) ==
              fmt::format("'{}' is not allowed here: write tcp-echo.size=BYTES or tcp-echo.timeout=TIME",
                          argument.substr(0, argument.find('='))));
    CHECK(status_shows(netns, "  echoed       none\n"));
    // Arguments of other scripts are ignored.
    CHECK(is(said_with("tcp-echoes=1,x={tcp-echo.x=1},x,tcp-echo.size=9"), R"(echo verified \(9 bytes, \d+ ms\))"));
}

TEST_CASE("nmap script: nmap finds its documentation") {
    const Netns netns;
    const auto help = run_ok(netns, {"nmap", "--script-help", TCP_ECHO_NSE});
    CHECK(help.find("\ntcp-echo\nCategories: discovery intrusive\n") != std::string::npos);
}

}  // namespace echo_server
