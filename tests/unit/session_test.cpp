// SPDX-License-Identifier: BSD-2-Clause
#include "echo/session.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "echo/worker.h"

using namespace std::string_view_literals;

namespace echo_server {

namespace {

/// Two ends, neither of which waits.
std::array<Fd, 2> socket_pair() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

/// A worker that serves one end of a socketpair in the test's own thread; the test has the other end.
class ServedSocket {
 public:
    ServedSocket() : worker_(counters_, port_stats_, std::chrono::seconds(0), {}) {
        auto [client, served] = socket_pair();
        client_ = std::move(client);
        worker_.on_connection_end([this] { ended_ = true; });
        worker_.serve(std::move(served));
    }

    void send(std::string_view text) const {
        REQUIRE(::send(client_.get(), text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()));
    }
    /// Sends as many bytes as the socket has room for; returns their number.
    [[nodiscard]] std::size_t fill() const {
        const std::string bytes(65536, 'x');
        std::size_t sent = 0;
        for (;;) {
            const auto count = ::send(client_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (count <= 0) return sent;
            sent += static_cast<std::size_t>(count);
        }
    }
    void finish() const { REQUIRE(::shutdown(client_.get(), SHUT_WR) == 0); }
    void close() { client_ = Fd(); }

    /// All bytes that came back, after the session has done all that it can do now.
    std::string receive() {
        std::string text;
        std::array<char, 65536> buffer{};
        for (int nothing = 0; nothing < 2;) {
            poll();
            const auto count = ::recv(client_.get(), buffer.data(), buffer.size(), 0);
            nothing = count > 0 ? 0 : nothing + 1;
            at_end_ = count == 0;
            if (count > 0) text.append(buffer.data(), static_cast<std::size_t>(count));
        }
        return text;
    }

    void poll() {
        while (worker_.io().poll() > 0) continue;
    }
    /// Whether the last receive() saw the session's FIN.
    [[nodiscard]] bool at_end() const { return at_end_; }
    [[nodiscard]] bool ended() const { return ended_; }
    [[nodiscard]] const echo_counters& counters() const { return counters_; }
    /// Of port 0, as a socketpair has no port.
    [[nodiscard]] const echo_port_stats& port_stats() const { return port_stats_[0]; }

 private:
    echo_counters counters_{};
    std::vector<echo_port_stats> port_stats_ = std::vector<echo_port_stats>(65536);
    Worker worker_;
    Fd client_;
    bool ended_ = false;
    bool at_end_ = false;
};

}  // namespace

TEST_CASE("session: sends back what it receives, then ends with the client") {
    ServedSocket socket;
    for (const auto text : {"hello"sv, "a"sv, "more\0than a string"sv}) {
        socket.send(text);
        CHECK(socket.receive() == text);
    }
    CHECK(!socket.ended());
    socket.send("last");
    socket.finish();
    CHECK(socket.receive() == "last");
    CHECK(socket.at_end());
    CHECK(socket.ended());
    CHECK(socket.counters().received == 28);
    CHECK(socket.counters().sent == 28);
    CHECK(socket.counters().ended == 1);
    CHECK(socket.port_stats().received == 28);
    CHECK(socket.port_stats().sent == 28);
}

TEST_CASE("session: counts its port once as accepted, and once as echoed, at the first byte that was sent") {
    ServedSocket socket;
    socket.poll();
    CHECK(socket.port_stats().accepted == 1);
    CHECK(socket.port_stats().echoed == 0);
    for (int i = 0; i < 3; ++i) {
        socket.send("x");
        CHECK(socket.receive() == "x");
        CHECK(socket.port_stats().accepted == 1);
        CHECK(socket.port_stats().echoed == 1);
    }
}

TEST_CASE("session: a client that is gone ends it, at once or while bytes are owed") {
    for (const bool owed : {false, true}) {
        ServedSocket socket;
        if (owed) {
            // Reads and writes in turns, until neither direction has room.
            while (socket.fill() > 0) socket.poll();
        }
        CHECK(!socket.ended());
        socket.close();
        socket.poll();
        CHECK(socket.ended());
        CHECK(socket.counters().ended == 1);
        CHECK((socket.counters().received > socket.counters().sent) == owed);
        CHECK(socket.port_stats().received == socket.counters().received);
        CHECK(socket.port_stats().sent == socket.counters().sent);
    }
}

TEST_CASE("session: what a full socket does not take is kept, and comes in order") {
    ServedSocket socket;
    std::size_t sent = 0;
    for (std::size_t more = socket.fill(); more > 0; more = socket.fill()) {
        sent += more;
        socket.poll();
    }
    CHECK(socket.counters().received < sent);  // it no longer reads from a client that does not read
    CHECK(socket.counters().sent < socket.counters().received);
    socket.finish();
    const auto received = socket.receive();
    CHECK(received.size() == sent);
    CHECK(received.find_first_not_of('x') == std::string::npos);
    CHECK(socket.at_end());
    CHECK(socket.counters().sent == sent);
    CHECK(socket.port_stats().received == sent);
    CHECK(socket.port_stats().sent == sent);
}

TEST_CASE("session: a stream goes through the pipe, whole and in order") {
    ServedSocket socket;
    std::string sent;
    std::string received;
    for (unsigned piece = 0; piece < 100; ++piece) {
        std::string bytes(65536, '\0');
        for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(piece + i % 251);
        socket.send(bytes);
        sent += bytes;
        received += socket.receive();
    }
    CHECK((received == sent));
    socket.send("the end");
    CHECK(socket.receive() == "the end");
}

TEST_CASE("session: when it has ended it causes no more work, even while another process has its socket open") {
    for (const int messages : {0, 1, 2, 3}) {
        CAPTURE(messages);
        echo_counters counters{};
        std::vector<echo_port_stats> port_stats(65536);
        Worker worker(counters, port_stats, std::chrono::seconds(0), {});
        auto [client, served] = socket_pair();
        const Fd of_another(::dup(served.get()));  // epoll(7) knows open files, not descriptors
        worker.serve(std::move(served));
        for (int i = 0; i < messages; ++i) {
            REQUIRE(::send(client.get(), "x", 1, MSG_NOSIGNAL) == 1);
            while (worker.io().poll() > 0) continue;
        }
        client = Fd();
        CHECK(worker.io().poll() > 0);
        CHECK(counters.ended == 1);
        CHECK(worker.io().poll() == 0);
    }
}

TEST_CASE("session: after a small message, any number of bytes comes back whole, and the end is seen") {
    // More than one read, whole buffers and parts of one: the session must not wait for an event if bytes are there.
    for (const std::size_t size : {1UL, 65535UL, 65536UL, 65537UL, 131072UL, 150000UL}) {
        for (const bool ends : {false, true}) {
            CAPTURE(size);
            CAPTURE(ends);
            ServedSocket socket;
            for (const auto text : {"small"sv, "smaller"sv}) {
                socket.send(text);
                CHECK(socket.receive() == text);
            }
            socket.send(std::string(size, 'x'));
            if (ends) socket.finish();
            CHECK((socket.receive() == std::string(size, 'x')));
            CHECK(socket.at_end() == ends);
            if (ends) continue;
            socket.send("small again");
            CHECK(socket.receive() == "small again");
        }
    }
}

TEST_CASE("session: ends with its worker while it waits") {
    echo_counters counters{};
    auto [client, served] = socket_pair();
    {
        std::vector<echo_port_stats> port_stats(65536);
        Worker worker(counters, port_stats, std::chrono::seconds(0), {});
        worker.serve(std::move(served));
        CHECK(counters.ended == 0);
    }
    CHECK(counters.ended == 1);
    char byte = 0;
    CHECK(::recv(client.get(), &byte, 1, 0) == 0);
}

namespace {

/// A session whose sweeps the test makes itself.
class SweptSession {
 public:
    explicit SweptSession(std::chrono::seconds idle_timeout)
        : context_{.epoll = epoll_.get(),
                   .counters = counters_,
                   .port_stats = port_stats_,
                   .idle_timeout = idle_timeout,
                   .own = {}} {
        auto [client, served] = socket_pair();
        client_ = std::move(client);
        context_.sessions.emplace_back(std::move(served), context_);
        session().set_place(context_.sessions.begin());
    }

    /// The echo of a byte, which the client does not acknowledge yet.
    void owe() {
        REQUIRE(::send(client_.get(), "x", 1, MSG_NOSIGNAL) == 1);
        REQUIRE(session().go_on(false));
    }
    /// Acknowledges one byte.
    void take() const {
        char byte = 0;
        REQUIRE(::recv(client_.get(), &byte, 1, 0) == 1);
    }
    /// How many more sweeps it survives.
    int sweeps() {
        int outlived = 0;
        while (outlived < 100 && !session().has_timed_out()) ++outlived;
        return outlived;
    }
    void sweep(int times) {
        for (int i = 0; i < times; ++i) REQUIRE(!session().has_timed_out());
    }

    /// Echoes a stream of 4 GiB and one piece.
    void stream() {
        std::array<char, 65536> piece{};
        for (int left = 65537; left > 0; --left) {
            REQUIRE(::send(client_.get(), piece.data(), piece.size(), MSG_NOSIGNAL) == piece.size());
            for (std::size_t back = 0; back < piece.size();) {
                REQUIRE(session().go_on(false));
                const auto count = ::recv(client_.get(), piece.data(), piece.size(), MSG_TRUNC);
                if (count > 0) back += static_cast<std::size_t>(count);
            }
        }
    }
    /// The client's FIN.
    void finish() {
        REQUIRE(::shutdown(client_.get(), SHUT_WR) == 0);
        REQUIRE(session().go_on(false));
    }
    void end() { context_.sessions.clear(); }
    [[nodiscard]] const echo_counters& counters() const { return counters_; }
    [[nodiscard]] const echo_port_stats& port_stats() const { return port_stats_[0]; }

 private:
    Session& session() { return context_.sessions.front(); }

    Fd epoll_{::epoll_create1(EPOLL_CLOEXEC)};
    echo_counters counters_{};
    std::vector<echo_port_stats> port_stats_ = std::vector<echo_port_stats>(65536);
    Fd client_;
    SessionContext context_;
};

constexpr std::chrono::seconds never{0};

}  // namespace

TEST_CASE("session: a client that owes has at least a minute from its last acknowledgment, in sweeps of a second") {
    SweptSession silent(never);
    CHECK(silent.sweeps() == 100);
    SweptSession owing(never);
    owing.owe();
    CHECK(owing.sweeps() == 60);  // the first sweep may come at once
    SweptSession again(never);
    again.owe();
    again.take();
    again.sweep(1);  // all is acknowledged
    again.owe();
    CHECK(again.sweeps() == 60);
    SweptSession slow(never);
    slow.owe();
    slow.owe();
    slow.sweep(59);
    slow.take();
    CHECK(slow.sweeps() == 60);
}

TEST_CASE("session: --idle-timeout ends it after that many sweeps, one a second, in which nothing moves") {
    SweptSession silent(std::chrono::seconds(3));
    CHECK(silent.sweeps() == 3);
    SweptSession busy(std::chrono::seconds(3));
    for (int i = 0; i < 5; ++i) {
        busy.sweep(3);
        busy.owe();
        busy.take();
    }
    CHECK(busy.sweeps() == 3);
    SweptSession slow(std::chrono::seconds(3));
    for (int i = 0; i < 5; ++i) slow.owe();
    for (int i = 0; i < 4; ++i) {
        slow.sweep(3);
        slow.take();
    }
    CHECK(slow.sweeps() == 3);
}

TEST_CASE("session: each sweep adds what was sent to the figures of the port, and the end adds the rest") {
    SweptSession session(never);
    const auto shows = [&](std::uint64_t bytes) {
        CHECK(session.port_stats().received == bytes);
        CHECK(session.port_stats().sent == bytes);
    };
    session.owe();
    session.owe();
    shows(0);  // a message does not update them
    session.sweep(1);
    shows(2);
    session.sweep(3);
    shows(2);
    session.owe();
    session.finish();
    session.sweep(1);
    shows(3);  // the FIN is not a byte
    session.end();
    shows(3);
}

TEST_CASE("session: counts more bytes between two sweeps than 32 bits hold") {
    SweptSession session(never);
    session.stream();
    session.end();
    CHECK(session.counters().sent > std::uint64_t{1} << 32U);
    CHECK(session.port_stats().sent == session.counters().sent);
    CHECK(session.port_stats().received == session.counters().received);
}

TEST_CASE("worker: other handlers run while many sessions have input") {
    constexpr int clients = 300;
    echo_counters counters{};
    std::vector<echo_port_stats> port_stats(65536);
    Worker worker(counters, port_stats, std::chrono::seconds(0), {});
    std::vector<Fd> ends;
    for (int i = 0; i < clients; ++i) {
        auto [client, served] = socket_pair();
        ends.push_back(std::move(client));
        worker.serve(std::move(served));
    }
    while (worker.io().poll() > 0) continue;
    for (const auto& client : ends) REQUIRE(::send(client.get(), "x", 1, MSG_NOSIGNAL) == 1);
    REQUIRE(worker.io().run_one() == 1);
    CHECK(counters.sent == 128);
    while (worker.io().poll() > 0) continue;
    CHECK(counters.sent == clients);
}

}  // namespace echo_server
