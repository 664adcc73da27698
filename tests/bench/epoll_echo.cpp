// SPDX-License-Identifier: BSD-2-Clause
// The floor for echo-server's figures: a TCP echo by epoll, in one thread. It echoes correctly, and leaves out all else
// that a server needs: signals, limits, counters, timeouts.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/os.h"
#include "dispatch/dispatcher.h"
#include "net/address.h"
#include "net/port_set.h"
#include "net/sockets.h"

using namespace echo_server;

namespace {

struct Connection {
    explicit Connection(Fd accepted) : fd(std::move(accepted)) {}
    Fd fd;
    std::string owed;  // bytes for which the socket had no room yet
};

class EpollEcho {
 public:
    explicit EpollEcho(Fd listener) : listener_(std::move(listener)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        control(EPOLL_CTL_ADD, listener_.get(), EPOLLIN);
    }

    [[noreturn]] void run() {
        for (;;) {
            const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), -1);
            for (int i = 0; i < count; ++i) {
                const auto& event = events_[static_cast<std::size_t>(i)];
                if (event.data.fd == listener_.get())
                    accept_all();
                else if (!serve(*connections_[static_cast<std::size_t>(event.data.fd)]))
                    connections_[static_cast<std::size_t>(event.data.fd)].reset();
            }
        }
    }

 private:
    void control(int operation, int fd, std::uint32_t events) const {
        epoll_event event{.events = events, .data = {.fd = fd}};
        if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0)
            throw std::system_error(errno, std::generic_category(), "epoll_ctl");
    }

    void accept_all() {
        for (;;) {
            Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
            if (!client) return;
            const int fd = client.get();
            if (connections_.size() <= static_cast<std::size_t>(fd))
                connections_.resize(static_cast<std::size_t>(fd) + 1);
            connections_[static_cast<std::size_t>(fd)] = std::make_unique<Connection>(std::move(client));
            control(EPOLL_CTL_ADD, fd, EPOLLIN);
        }
    }

    // Returns false at the end of the connection.
    bool serve(Connection& connection) {
        const int fd = connection.fd.get();
        if (!connection.owed.empty()) {
            const auto sent = ::send(fd, connection.owed.data(), connection.owed.size(), MSG_NOSIGNAL);
            if (sent < 0) return errno == EAGAIN;
            connection.owed.erase(0, static_cast<std::size_t>(sent));
            if (connection.owed.empty()) control(EPOLL_CTL_MOD, fd, EPOLLIN);
            return true;
        }
        const auto received = ::recv(fd, buffer_.data(), buffer_.size(), 0);
        if (received <= 0) return received < 0 && errno == EAGAIN;
        auto sent = ::send(fd, buffer_.data(), static_cast<std::size_t>(received), MSG_NOSIGNAL);
        if (sent == received) return true;
        if (sent < 0 && errno != EAGAIN) return false;
        sent = std::max<ssize_t>(sent, 0);
        connection.owed.assign(buffer_.data() + sent, static_cast<std::size_t>(received - sent));
        control(EPOLL_CTL_MOD, fd, EPOLLOUT);
        return true;
    }

    Fd listener_;
    Fd epoll_;
    std::vector<std::unique_ptr<Connection>> connections_;  // by descriptor
    std::array<epoll_event, 128> events_{};
    std::array<char, 65536> buffer_{};
};

int run(const std::vector<std::string>& arguments) {
    if (arguments.size() != 2 || (arguments[0] != "direct" && arguments[0] != "dispatch"))
        throw std::runtime_error("give 'direct ADDR:PORT', or 'dispatch PORTS'");
    raise_descriptor_limit();
    std::optional<Dispatcher> dispatcher;
    Link link;
    Fd listener;
    if (arguments[0] == "direct") {
        listener = open_listener(parse_endpoint(arguments[1]));
    } else {
        listener = open_listener(parse_endpoint("127.0.0.1:7777"));
        PortList ports;
        ports.add(arguments[1]);
        dispatcher.emplace();
        dispatcher->set_listener(listener.get());
        dispatcher->set_ports(ports.ports());
        link = dispatcher->attach();
    }
    // Each connection ends by close(2) alone, and by a FIN.
    const linger none{};
    ::setsockopt(listener.get(), SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    fmt::print("ready\n");
    std::fflush(stdout);
    EpollEcho(std::move(listener)).run();
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return run({argv + 1, argv + argc});
    } catch (const std::exception& error) {
        fmt::print(stderr, "epoll-echo: {}\n", error.what());
        return 1;
    }
}
