// SPDX-License-Identifier: BSD-2-Clause
#include "support/client.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "support/process.h"

namespace echo_server {

namespace {

struct Address {
    sockaddr_storage storage{};
    socklen_t size = 0;
    [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

Address make_address(const std::string& text, std::uint16_t port) {
    Address address;
    sockaddr_in ip4{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
    sockaddr_in6 ip6{
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_flowinfo = 0, .sin6_addr = {}, .sin6_scope_id = 0};
    if (::inet_pton(AF_INET, text.c_str(), &ip4.sin_addr) == 1) {
        std::memcpy(&address.storage, &ip4, address.size = sizeof(ip4));
    } else {
        REQUIRE(::inet_pton(AF_INET6, text.c_str(), &ip6.sin6_addr) == 1);
        std::memcpy(&address.storage, &ip6, address.size = sizeof(ip6));
    }
    return address;
}

Fd open_socket(const Netns& netns, int family, int type) {
    const Netns::Entered entered(netns);
    Fd socket(::socket(family, type | SOCK_CLOEXEC, 0));
    REQUIRE(socket);
    const timeval limit{.tv_sec = time_limit.count(), .tv_usec = 0};
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) == 0);
    return socket;
}

Fd open_service(const Netns& netns, int type, const Address& here) {
    Fd socket = open_socket(netns, here.storage.ss_family, type);
    const int on = 1;
    REQUIRE(::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
    REQUIRE(::bind(socket.get(), here.get(), here.size) == 0);
    if (type == SOCK_STREAM) REQUIRE(::listen(socket.get(), SOMAXCONN) == 0);
    return socket;
}

}  // namespace

Client::Client(const Netns& netns, const std::string& address, std::uint16_t port) {
    const auto to = make_address(address, port);
    fd_ = open_socket(netns, to.storage.ss_family, SOCK_STREAM);
    if (::connect(fd_.get(), to.get(), to.size) != 0) error_ = errno;
}

void Client::send(std::string_view data, int flags) {
    while (error_ == 0 && !data.empty()) {
        const auto count = ::send(fd_.get(), data.data(), data.size(), flags | MSG_NOSIGNAL);
        if (count < 0)
            error_ = errno;
        else
            data.remove_prefix(static_cast<std::size_t>(count));
    }
}

std::string Client::receive(std::size_t size) {
    std::string data(size, '\0');
    std::size_t done = 0;
    while (error_ == 0 && done < size) {
        const auto count = ::recv(fd_.get(), data.data() + done, size - done, 0);
        if (count > 0)
            done += static_cast<std::size_t>(count);
        else
            error_ = count == 0 ? ENODATA : errno;
    }
    data.resize(done);
    return data;
}

bool Client::at_end() {
    char byte = 0;
    return error_ == 0 && ::recv(fd_.get(), &byte, 1, 0) == 0;
}

void Client::shutdown_write() {
    if (error_ == 0 && ::shutdown(fd_.get(), SHUT_WR) != 0) error_ = errno;
}

Client connected(const Netns& netns, std::uint16_t port, const std::string& address) {
    Client client(netns, address, port);
    client.send("x");
    REQUIRE(client.receive(1) == "x");
    return client;
}

void reset(Client client) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    REQUIRE(::setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
}

int try_connect(const Netns& netns, const std::string& address, std::uint16_t port) {
    return Client(netns, address, port).error();
}

std::string bytes_of(char client, std::size_t size) {
    std::string bytes;
    while (bytes.size() < size) bytes += fmt::format("{}{:07}", client, bytes.size());
    bytes.resize(size);
    return bytes;
}

bool echoes(const Netns& netns, const std::string& address, std::uint16_t port, std::string_view text) {
    Client client(netns, address, port);
    client.send(text);
    client.shutdown_write();
    return client.receive(text.size()) == text && client.at_end();
}

NamedServer::NamedServer(const Netns& netns, Protocol protocol, const std::string& address, std::uint16_t port,
                         std::string name)
    : protocol_(protocol),
      name_(std::move(name)),
      socket_(open_service(netns, protocol == Protocol::tcp ? SOCK_STREAM : SOCK_DGRAM, make_address(address, port))),
      answers_([this] { answer(); }) {}

void NamedServer::answer() const {
    pollfd ready{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 20) <= 0) return;
    if (protocol_ == Protocol::tcp) {
        const Fd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        ::send(client.get(), name_.data(), name_.size(), MSG_NOSIGNAL);
    } else {
        Address from;
        from.size = sizeof(from.storage);
        std::array<char, 64> buffer{};
        ::recvfrom(socket_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from.storage),
                   &from.size);
        ::sendto(socket_.get(), name_.data(), name_.size(), 0, from.get(), from.size);
    }
}

std::string who_answers(const Netns& netns, NamedServer::Protocol protocol, const std::string& address,
                        std::uint16_t port) {
    std::array<char, 64> buffer{};
    if (protocol == NamedServer::Protocol::tcp) {
        Client client(netns, address, port);
        if (client.error() != 0) return "nobody";
        // An echo server sends this back; another service says its name.
        client.send("?");
        client.shutdown_write();
        std::string answer;
        for (ssize_t count = 0; (count = ::recv(client.fd(), buffer.data(), buffer.size(), 0)) > 0;)
            answer.append(buffer.data(), static_cast<std::size_t>(count));
        return answer == "?" ? "echo" : answer;
    }
    const auto to = make_address(address, port);
    const Fd socket = open_socket(netns, to.storage.ss_family, SOCK_DGRAM);
    ::sendto(socket.get(), "?", 1, 0, to.get(), to.size);
    const auto count = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
    return count > 0 ? std::string(buffer.data(), static_cast<std::size_t>(count)) : "nobody";
}

}  // namespace echo_server
