// SPDX-License-Identifier: BSD-2-Clause
// What 'echo-server probe' says when it is called wrongly, can't measure, or is stopped, and what it shows meanwhile.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/os.h"
#include "support/child.h"
#include "support/client.h"
#include "support/peer.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

namespace {

// A terminal, and what was written to it.
class Terminal {
 public:
    Terminal() : ours_(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
        REQUIRE(ours_);
        REQUIRE(::grantpt(ours_.get()) == 0);
        REQUIRE(::unlockpt(ours_.get()) == 0);
        REQUIRE(::ptsname_r(ours_.get(), name_.data(), name_.size()) == 0);
    }

    /// For Process's in_child: its standard error.
    void become_standard_error() const {
        const Fd theirs(::open(name_.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
        if (!theirs || ::dup2(theirs.get(), STDERR_FILENO) < 0) std::abort();
    }
    /// All of it, once nobody has it open any more.
    [[nodiscard]] std::string read_all() const {
        std::string text;
        std::array<char, 4096> piece{};
        for (ssize_t size = 0; (size = ::read(ours_.get(), piece.data(), piece.size())) > 0;)
            text.append(piece.data(), static_cast<std::size_t>(size));
        return text;
    }

 private:
    Fd ours_;
    std::array<char, 64> name_{};
};

void fill_the_output() {
    const Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    if (!full || ::dup2(full.get(), STDOUT_FILENO) < 0) std::abort();
}

}  // namespace

TEST_CASE("probe: wrong usage has exit code 2, and says what is wrong") {
    const Netns netns;
    struct Case {
        Command arguments;
        std::string says;
    };
    const std::vector<Case> cases = {
        {{"probe"}, "HOST is required"},
        {{"probe", "a", "b"}, "The following argument was not expected: b"},
        {{"probe", "--frob", "a"}, "The following argument was not expected: --frob"},
        {{"probe", "--ports", "0", "a"}, "--ports: '0' is not allowed here"},
        {{"probe", "--expect", "7-5", "a"}, "--expect: '7-5' runs backwards: write 5-7"},
        {{"probe", "--payload", "pop3", "a"}, "--payload: 'pop3' is not a payload: write tls, http, "},
        {{"probe", "--payload", "hex:0", "a"}, "--payload: 'hex:0' is not a payload: write tls, http, "},
        {{"probe", "--size", "16777217", "a"}, "--size: '16777217' is not a whole number from 1 to 16777216; "},
        {{"probe", "--timeout", "0", "a"}, "--timeout: '0' is not a whole number of seconds from 1 to 3600; "},
        {{"probe", "--hold", "1m", "a"}, "--hold: '1m' is not a whole number of seconds from 1 to 86400; "},
        {{"probe", "--rate", "1.5", "a"}, "--rate: '1.5' is not a whole number from 1 to 1000000; "},
        {{"probe", "--size", "1", "--size", "2", "a"}, "--size is given more than once; "},
        {{"probe", "--size", "5", "--payload", "tls", "a"}, "--size excludes --payload"},
        {{"probe", "-4", "-6", "a"}, "-4 excludes -6"},
        {{"probe", "--status", "a", "--status-command", "b", "c"}, "--status excludes --status-command"},
        {{"--ports", "7", "probe", "a"}, "probe excludes --ports"},
    };
    for (const auto& wrong : cases) {
        const auto result = run(netns, echo_server(wrong.arguments));
        CAPTURE(result.output);
        CHECK(result.code == 2);
        CHECK(result.output.starts_with("echo-server: " + wrong.says));
        CHECK(result.output.ends_with("; see echo-server probe --help\n"));
        CHECK(count(result.output, "\n") == 1);
    }
}

TEST_CASE("probe: a measurement that fails has exit code 3, and gives no verdict") {
    const Network network;
    run_ok(network.host, {"ip", "address", "add", "fe80::1/64", "dev", "to-vm", "nodad"});
    struct Case {
        Command arguments;
        std::string says;
        std::function<void()> in_child = {};
    };
    const std::vector<Case> cases = {
        {{"no.invalid"}, "finding the address of 'no.invalid': "},
        {{"-6", "127.0.0.1"}, "finding the address of '127.0.0.1': "},
        {{"203.0.113.1"},
         "connecting to 203.0.113.1 port 1: Network is unreachable; this host has no route to it: see 'ip route get'"},
        {{"fe80::2"},
         "connecting to fe80::2 port 1: Invalid argument; a link-local address needs its zone: fe80::1%eth0"},
        {{"127.0.0.1"},
         "connecting to 127.0.0.1 port 1: Operation not permitted; a filter or a policy of this host forbids it",
         [] { refuse_system_call(SYS_connect, -1, EPERM); }},
        {{"127.0.0.1"}, "even one connection needs ", [] { limit_descriptors(12); }},
        {{"--ports", "!1-65535", "127.0.0.1"}, "there is no port to probe: choose others with --ports"},
        {{"--payload", "@/nowhere", "127.0.0.1"}, "opening the payload file '/nowhere': No such file or directory"},
        {{"--ports", "7", "127.0.0.1"}, "writing the result: No space left on device", fill_the_output},
        {{"--status", "/nowhere", "127.0.0.1"}, "reading --status '/nowhere': No such file or directory"},
        {{"--status", "/dev/null", "127.0.0.1"}, "reading the server's status: "},
        {{"--status-command", "false", "127.0.0.1"},
         "running --status-command 'false': it failed; run it in a shell to see why"},
        {{"--status-command", "echo '{}'", "127.0.0.1"}, "reading the server's status: "},
        {{"--status-command", R"(echo '{"instances": []}')", "127.0.0.1"},
         "reading the server's status: no server runs there; give the whole output of 'echo-server status --json'"},
    };
    for (const auto& failing : cases) {
        Command command{"probe", "--retries", "0"};
        command.insert(command.end(), failing.arguments.begin(), failing.arguments.end());
        const auto result = run(network.host, echo_server(command), failing.in_child);
        CAPTURE(result.output);
        CAPTURE(failing.says);
        CHECK(result.code == 3);
        CHECK(result.output.starts_with("echo-server: probe: " + failing.says));
        CHECK(count(result.output, "\n") == 1);
    }
}

TEST_CASE("probe: the results are printed, even if the server's status fails in the end") {
    const Netns netns;
    const TempFile once("");
    const std::string status = R"(echo '{"instances": [{"by_port": {}, "ports": null, "left_out": null}]}')";
    const auto [code, output] =
        run(netns, echo_server({"probe", "--retries", "0", "--ports", "7", "--status-command",
                                fmt::format("test ! -s {0} && echo 1 >{0} && {1}", once.path(), status), "127.0.0.1"}));
    CHECK(code == 3);
    CHECK(output.find("echo-server: probe: running --status-command 'test ") != std::string::npos);
    CHECK(output.find("\n  refused      1 port: 7\n") != std::string::npos);
}

TEST_CASE("probe: Ctrl-C prints what is known so far") {
    const Network network;
    const Server server(network.vm, {"--ports", "1-10"});
    run_ok(network.vm, {"nft", "-f",
                        TempFile(R"(
        table inet firewall {
            counter dropped {}
            chain in {
                type filter hook input priority 0;
                tcp dport 5001-8000 counter name dropped drop
            }
        })")
                            .path()});
    Process probe(network.host,
                  echo_server({"probe", "--ports", "1-10,5001-8000", "--timeout", "600", Network::vm_ip4}));
    REQUIRE(eventually([&] {
        return levels(network.vm)["echoed"] == "1-10" &&
               run_ok(network.vm, {"nft", "list", "counters"}).find("packets 0 ") == std::string::npos &&
               run_ok(network.host, {"ss", "-Htn", "state", "established"}).empty();
    }));
    probe.signal(SIGINT);
    CHECK(probe.wait() == 3);
    CHECK(std::regex_match(
        probe.output(),
        std::regex("probe of 192\\.0\\.2\\.2: 3010 ports, 4096 bytes on each, \\d+\\.\\d s, ended before all was done\n"
                   "  echoed       10 ports: 1-10\n"
                   "  not probed   3000 ports: 5001-8000\n")));
}

TEST_CASE("probe: Ctrl-C in --hold, or in the exchange after it, shows ports that have echoed once") {
    const Netns netns;
    std::atomic<int> received = 0;
    const Peer once(netns, 7, [&](Fd& client) {
        tell(client, receive_from(client, 4096));
        received = 1;
        if (receive_from(client, 4096).size() == 4096) received = 2;
        receive_from(client, 1);
    });
    for (const int payloads : {1, 2}) {
        const auto* const hold = payloads == 1 ? "600" : "1";
        CAPTURE(hold);
        Process probe(netns, echo_server({"probe", "--ports", "7", "--hold", hold, "--timeout", "600", "127.0.0.1"}));
        REQUIRE(eventually([&] { return received == payloads; }));
        // The probe has read the echo: nothing is left in its socket.
        REQUIRE(eventually([&] {
            return std::regex_search(run_ok(netns, {"ss", "-Hnti", "dport = 7"}),
                                     std::regex(R"(ESTAB +0 [^]*bytes_received:4096)"));
        }));
        probe.signal(SIGINT);
        CHECK(probe.wait() == 3);
        CHECK(probe.output().ends_with("  echoed       1 port, once, before the probe was ended: 7\n"));
    }
}

TEST_CASE("probe: on a terminal one line shows the progress, and is removed in the end") {
    const Netns netns;
    const Server server(netns, {"--ports", "1-20"});
    const Terminal terminal;
    Process probe(netns, echo_server({"probe", "--ports", "1-20", "127.0.0.1"}),
                  [&] { terminal.become_standard_error(); });
    CHECK(probe.wait() == 0);
    CHECK(probe.output().starts_with("probe of 127.0.0.1: 20 ports"));
    const auto shown = terminal.read_all();
    CAPTURE(shown);
    CHECK(std::regex_match(shown, std::regex("(\r\\d+ of 20 ports, \\d+ a second(, \\d+ s left)?\x1b\\[K)+"
                                             "\r\x1b\\[K")));

    Process failing(netns, echo_server({"probe", "--ports", "20-21", "--retries", "1", "127.0.0.1"}),
                    [&] { terminal.become_standard_error(); });
    CHECK(failing.wait() == 1);
    const auto of_retry = terminal.read_all();
    CAPTURE(of_retry);
    CHECK(std::regex_search(of_retry, std::regex("\rretry 1: [01] of 1 ports, ")));
}

}  // namespace echo_server
