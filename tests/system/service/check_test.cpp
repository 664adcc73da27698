// SPDX-License-Identifier: BSD-2-Clause
// --check: what a start would say, without a start.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "support/child.h"
#include "support/client.h"
#include "support/server.h"

namespace echo_server {
namespace {

Result check(const Netns& netns, Command arguments, const std::function<void()>& in_child = {}) {
    arguments.emplace_back("--check");
    return run(netns, echo_server(arguments), in_child);
}

}  // namespace

TEST_CASE("check: it finds what would make a start fail") {
    const Netns netns;
    const TempFile file("7,seven\n");
    const NamedServer other(netns, NamedServer::Protocol::tcp, "127.0.0.1", 77, "other");
    struct Case {
        Command arguments;
        std::string says;
    };
    const std::vector<Case> cases{
        {{"--ports-file", file.path()}, "'seven' is not allowed here"},
        {{"--ports-file", "/nowhere"}, "/nowhere: No such file"},
        {{"--ports", "7,77"}, "port 77"},
        {{"--ports", "32768-60999"}, "local ports"},
        {{"--ports", "7", "--user", "nobody-here"}, "there is no user 'nobody-here'"},
        {{"--ports", "7", "--listen", "192.0.2.7:7777"}, "listening on 192.0.2.7:7777"},
        {{"--ports", "7", "--listen", "127.0.0.1:77"}, "listening on 127.0.0.1:77: Address already in use"},
        {{"--ports", "7", "--pin", "/tmp"}, "pinning maps in /tmp: it is not on a BPF file system"},
    };
    for (const auto& wrong : cases) {
        CAPTURE(wrong.says);
        const auto result = check(netns, wrong.arguments);
        CHECK(result.code == 1);
        CHECK(result.output.starts_with("echo-server: "));
        CHECK(result.output.find(wrong.says) != std::string::npos);
    }
    CHECK(check(netns, {"--ports", "7,"}).code == 2);  // wrong usage
}

TEST_CASE("check: it changes nothing") {
    const Netns netns;
    const auto result = check(netns, {"--ports", "7,100-102"});
    CHECK(result.code == 0);
    CHECK(result.output == "nothing is wrong; a start would have 4 TCP ports open: 7,100-102\n");
    CHECK(nothing_left(netns));
    CHECK(try_connect(netns, "127.0.0.1", 7777) == ECONNREFUSED);
}

TEST_CASE("check: the running server's own socket does not make it fail") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    CHECK(check(netns, {"--ports", "7,9,7777"}).code == 0);
    CHECK(check(netns, {"--ports", "7", "--listen", "127.0.0.1:7777"}).code == 0);
    CHECK(check(netns, {"--ports", "7", "--listen", "[::]:7777"}).code == 0);  // it would replace that socket
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(try_connect(netns, "127.0.0.1", 9) == ECONNREFUSED);
}

TEST_CASE("check: beside a running server it is about a restart or a reload, and says that a start is refused") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    const auto result = check(netns, {"--ports", "9"});
    CHECK(result.code == 0);
    CHECK(result.output ==
          "nothing is wrong; a restart or a reload of the running server would have 1 TCP port open: 9; another "
          "start would be refused\n");
}

TEST_CASE("check: with --replace it says the same as the start") {
    const Netns netns;
    CHECK(check(netns, {"--ports", "7", "--replace"}).code == 0);  // an ordinary start
    Server server(netns, {"--ports", "7", "--user", "root"});
    CHECK(check(netns, {"--ports", "7,9,7777", "--replace"}).output ==
          "nothing is wrong; a start would have 3 TCP ports open: 7,9,7777\n");
    CHECK(check(netns, {"--ports", "9", "--replace", "--listen", "127.0.0.1:7777"}).code == 0);
    const auto fails = [&](const Command& arguments, const std::string& says) {
        CAPTURE(says);
        const auto start = run(netns, echo_server(arguments));
        CHECK(start.code == 1);
        CHECK(start.output.find(says) != std::string::npos);
        const auto checked = check(netns, arguments);
        CHECK(checked.code == 1);
        CHECK(checked.output == start.output);
    };
    fails({"--ports", "7", "--replace", "--listen", "127.0.0.1:7778"}, "leave out --listen");
    const TempFile file("7\n");
    REQUIRE(::chmod(file.path().c_str(), 0600) == 0);
    fails({"--ports-file", file.path(), "--replace"}, "Permission denied for user nobody");
    {
        const Server beside(netns, {"--ports", "8", "--listen", "127.0.0.1:7778"});
        fails({"--ports", "9", "--replace"}, "several servers run here, each with its own socket: stop all but one");
    }
    CHECK(echoes(netns, "127.0.0.1", 7));
    CHECK(server.output().find("replaced") == std::string::npos);
}

TEST_CASE("check: a server whose program was detached does not make it fail, as a reload ends that server") {
    const Netns netns;
    const Server server(netns, {"--ports", "7"});
    detach_program(netns);
    CHECK(check(netns, {"--ports", "7"}).code == 0);
}

TEST_CASE("check: without root it warns, and does not recognize the running server's socket") {
    const Netns netns;
    const auto ordinary = [] { become_ordinary({}); };
    const auto alone = check(netns, {"--ports", "7"}, ordinary);
    CHECK(alone.code == 0);
    CHECK(alone.output ==
          "echo-server: without root, this checks neither for other echo-servers nor the capabilities of the start\n"
          "nothing is wrong; a start would have 1 TCP port open: 7\n");
    const Server server(netns, {"--ports", "7"});
    const auto result = check(netns, {"--ports", "9"}, ordinary);
    CHECK(result.code == 1);
    CHECK(result.output.find("another program, perhaps another echo-server, listens there") != std::string::npos);
}

TEST_CASE("check: a ports file that the server's user can't read would fail the reload") {
    const Netns netns;
    const TempFile file("7\n");
    REQUIRE(::chmod(file.path().c_str(), 0600) == 0);
    const auto as_nobody = check(netns, {"--ports-file", file.path()});
    CHECK(as_nobody.code == 1);
    CHECK(as_nobody.output.find(file.path() + ": Permission denied for user nobody: let it read the file") !=
          std::string::npos);
    CHECK(check(netns, {"--ports-file", file.path(), "--user", "root"}).code == 0);
    const Server server(netns, {"--ports", "7", "--user", "root"});
    CHECK(check(netns, {"--ports-file", file.path()}).code == 0);  // the user of the running server
}

}  // namespace echo_server
