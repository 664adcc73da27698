// SPDX-License-Identifier: BSD-2-Clause
#include "support/service.h"

#include <doctest/doctest.h>

#include <csignal>
#include <thread>

namespace echo_server {

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
    auto idle = newcomer(netns_, 7);
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

Client newcomer(const Netns& netns, std::uint16_t port) {
    Client client(netns, "127.0.0.1", port);
    client.send("hello");
    return client;
}

bool is_served(Client& newcomer) {
    if (newcomer.receive(5) != "hello") return false;
    newcomer.shutdown_write();
    return newcomer.at_end();
}

}  // namespace echo_server
