// SPDX-License-Identifier: BSD-2-Clause
// Bytes that stay in the pipe of a stream, when any call on their way fails.
#include <doctest/doctest.h>

#include <csignal>
#include <string>
#include <vector>

#include "support/child.h"
#include "support/client.h"
#include "support/inject_fault.h"
#include "support/server.h"
#include "support/shown_status.h"

namespace echo_server {

TEST_CASE("splice: a fault in any call of a stream lets no byte get to another client") {
    constexpr std::size_t much = 1U << 20U;
    struct Case {
        std::string fault;  // the same as in faults.c
        bool is_served;     // or cut off: bytes of the stream are lost
    };
    const std::vector<Case> cases = {
        {"in:short", true},
        {"in:EAGAIN", true},
        {"in:EINTR", true},
        {"in:EPERM", true},
        {"in:moved-EIO", false},
        {"in:moved-EAGAIN", false},
        {"in:moved-EINTR", false},
        {"in:moved-EIO pipe2:EMFILE", false},
        {"in:moved-EIO ioctl:EIO", false},
        {"out:short", true},
        {"out:EAGAIN", true},
        {"out:EINTR", true},
        {"out:EPIPE", false},
        {"out:EPIPE pipe2:EMFILE", false},
        {"out:EPIPE pipe2:ENFILE", false},
        {"out:moved-EIO", false},
        {"out:moved-EAGAIN", false},
        {"out:moved-EIO pipe2:EMFILE", false},
        {"out:short read:short", true},
        {"out:short read:EAGAIN", false},
        {"out:short read:EIO", false},
        {"out:short read:EIO pipe2:EMFILE", false},
        {"out:EAGAIN read:moved-EIO", false},
        {"ioctl:EIO", true},
        {"ioctl:EIO pipe2:EMFILE", true},
    };
    const auto of_before = bytes_of('B', much);
    const auto of_after = bytes_of('A', much);
    const auto of_struck = bytes_of('S', 4 * much);
    const Netns netns;
    for (const auto& row : cases) {
        CAPTURE(row.fault);
        Server server(netns, {"--ports", "7,9", "--threads", "1"}, [&] { fail_splice(row.fault); });
        const auto check = [&](Client& client, const std::string& bytes) {
            for (const std::size_t size : {much, std::size_t{5}, much}) {
                const auto sent = bytes.substr(0, size);
                client.send(sent);
                REQUIRE((client.receive(size) == sent));
            }
        };
        Client before(netns, "127.0.0.1", 7);
        check(before, of_before);

        Client struck(netns, "127.0.0.1", 9);
        struck.send(of_struck);
        const auto received = struck.receive(of_struck.size());
        CHECK(of_struck.starts_with(received));
        CHECK((received.size() == of_struck.size()) == row.is_served);
        CHECK(struck.error() != ENODATA);  // a truncated echo does not look whole

        Client after(netns, "127.0.0.1", 7);
        check(after, of_after);
        check(before, of_before);
        for (auto* client : {&after, &before}) {
            client->shutdown_write();
            CHECK(client->at_end());
        }
        struck.shutdown_write();
        CHECK(eventually([&] { return bytes_add_up(netns); }));  // also the bytes that were received and lost
        server.signal(SIGTERM);
        CHECK(server.wait() == 0);
    }
}

}  // namespace echo_server
