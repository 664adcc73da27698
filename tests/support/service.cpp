// SPDX-License-Identifier: BSD-2-Clause
#include "support/service.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace echo_server {

namespace {

constexpr auto socket_name = "echo-server-test-notify";

// The value of a line "NAME=value" in a message.
std::string value_of(const std::string& message, const std::string& name) {
    const auto start = ("\n" + message).find("\n" + name + "=");
    if (start == std::string::npos) return {};
    const auto value = start + name.size() + 1;
    return message.substr(value, message.find('\n', value) - value);
}

}  // namespace

Systemd::Systemd(const Netns& netns) {
    const Netns::Entered entered(netns);  // an abstract address belongs to a network namespace
    socket_ = Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::memcpy(address.sun_path + 1, socket_name, std::strlen(socket_name));
    const auto size = offsetof(sockaddr_un, sun_path) + 1 + std::strlen(socket_name);
    REQUIRE(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size)) == 0);
    const timeval limit{.tv_sec = time_limit.count(), .tv_usec = 0};
    REQUIRE(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
}

std::string Systemd::next(Fd& fd) {
    std::array<char, 4096> text{};
    std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec part{.iov_base = text.data(), .iov_len = text.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto count = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (count < 0) return "nothing";
    for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_type != SCM_RIGHTS) continue;
        int received = -1;
        std::memcpy(&received, CMSG_DATA(header), sizeof(received));
        fd = Fd(received);
    }
    return {text.data(), static_cast<std::size_t>(count)};
}

std::string Systemd::receive() {
    for (;;) {
        Fd fd;
        auto message = next(fd);
        const auto name = value_of(message, "FDNAME");
        if (value_of(message, "FDSTORE") == "1")
            stored.push_back({name, std::move(fd)});
        else if (value_of(message, "FDSTOREREMOVE") == "1")
            std::erase_if(stored, [&](const DescriptorStore::Entry& entry) { return entry.name == name; });
        else if (message != "BARRIER=1")  // its sender waits until the descriptor is closed
            return message;
    }
}

void Systemd::wait_for(const std::string& text) {
    for (;;) {
        const auto message = receive();
        REQUIRE(message != "nothing");
        if (message.find(text) != std::string::npos) return;
    }
}

std::string Systemd::kinds() const {
    std::string kinds;
    for (const auto& entry : stored) kinds += (kinds.empty() ? "" : ", ") + entry.name.substr(0, entry.name.find('-'));
    return kinds;
}

void Systemd::start() { ::setenv("NOTIFY_SOCKET", (std::string("@") + socket_name).c_str(), 1); }

void Systemd::start_with_store() const {
    start();
    ::setenv("FDSTORE", "8", 1);
    constexpr int first_passed = 3;
    constexpr int out_of_the_way = 100;
    std::string names;
    std::vector<int> copies;
    for (const auto& entry : stored) {
        copies.push_back(::fcntl(entry.fd.get(), F_DUPFD_CLOEXEC, out_of_the_way));
        names += (names.empty() ? "" : ":") + entry.name;
    }
    for (std::size_t i = 0; i < copies.size(); ++i) ::dup2(copies[i], first_passed + static_cast<int>(i));
    ::setenv("LISTEN_FDS", std::to_string(copies.size()).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
}

void Service::start(const Command& arguments) {
    std::thread hearing([&] { systemd.wait_for("READY=1"); });  // at the same time, as a start may wait for that
    process = std::make_unique<Server>(netns_, arguments, [&] { systemd.start_with_store(); });
    hearing.join();
}

std::string Service::fail_to_start(const Command& arguments) {
    std::thread hearing([&] { systemd.wait_for("STATUS=Failed"); });
    const auto result = run(netns_, echo_server(arguments), [&] { systemd.start_with_store(); });
    CHECK(result.code == 1);
    hearing.join();
    return result.output;
}

Client Service::start_with_idle_client() {
    start({"--ports", "7", "--drain-timeout", "3600"});
    auto idle = new_client(netns_, 7);
    CHECK(idle.receive(5) == "hello");
    return idle;
}

void Service::stop() {
    process->signal(SIGTERM);
    CHECK(process->wait() == 0);
    systemd.wait_for("STATUS=Stopped");
}

void Service::start_and_stop(const Command& arguments) {
    start(arguments);
    stop();
}

void Service::crash() const {
    process->signal(SIGKILL);
    CHECK(process->wait() == -SIGKILL);
}

Client new_client(const Netns& netns, std::uint16_t port) {
    Client client(netns, "127.0.0.1", port);
    client.send("hello");
    return client;
}

bool is_served(Client& client) {
    if (client.receive(5) != "hello") return false;
    client.shutdown_write();
    return client.at_end();
}

}  // namespace echo_server
