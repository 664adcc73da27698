// SPDX-License-Identifier: BSD-2-Clause
#include "load.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

// The limit for each connection, so that a replaced server comes to its end.
constexpr auto lifetime = 2s;

constexpr std::size_t longest = 1U << 20U;

std::size_t up_to(std::minstd_rand& random, std::size_t max) {
    return std::uniform_int_distribution<std::size_t>(1, max)(random);
}

}  // namespace

MixedLoad::MixedLoad(const Network& network) : network_(network), text_(4 * longest, '\0') {
    Random random;
    for (auto& c : text_) c = static_cast<char>(random() >> 8U);
    for (const auto kind : {&MixedLoad::connect_and_end, &MixedLoad::stream, &MixedLoad::be_idle,
                            &MixedLoad::reset_at_once, &MixedLoad::read_slowly})
        start(kind);
}

void MixedLoad::start(void (MixedLoad::*kind)(Random&)) {
    threads_.emplace_back([this, kind, seed = threads_.size() + 1] {
        Random random(static_cast<unsigned>(seed));
        while (!stop_) (this->*kind)(random);
    });
}

void MixedLoad::finish() {
    stop_ = true;
    for (auto& thread : threads_) thread.join();
    threads_.clear();
}

std::string MixedLoad::first_failure() {
    const std::scoped_lock lock(mutex_);
    return first_failure_;
}

Client MixedLoad::connect(Random& random) {
    ++connections_;
    return {network_.host, up_to(random, 2) == 1 ? Network::vm_ip4 : Network::vm_ip6, 7};
}

std::string_view MixedLoad::piece(Random& random, std::size_t size) const {
    return std::string_view(text_).substr(up_to(random, text_.size() - size) - 1, size);
}

void MixedLoad::count(const Client& client, std::string_view sent, std::string_view received) {
    if (sent == received) {
        bytes_ += sent.size();
        return;
    }
    if (failures_++ > 0) return;
    const std::scoped_lock lock(mutex_);
    first_failure_ = fmt::format("of {} bytes came back {}, {}; error {}", sent.size(), received.size(),
                                 sent.starts_with(received) ? "as they were" : "altered", client.error());
}

void MixedLoad::end(Client& client) {
    client.shutdown_write();
    count(client, "end", client.at_end() ? "end" : "");
}

void MixedLoad::connect_and_end(Random& random) {
    auto client = connect(random);
    const auto sent = piece(random, up_to(random, 1000));
    client.send(sent);
    count(client, sent, client.receive(sent.size()));
    end(client);
}

void MixedLoad::stream(Random& random) {
    auto client = connect(random);
    for (const auto start = steady_clock::now(); !stop_ && steady_clock::now() - start < lifetime;) {
        const auto sent = piece(random, up_to(random, longest));
        client.send(sent);
        count(client, sent, client.receive(sent.size()));
    }
    end(client);
}

void MixedLoad::be_idle(Random& random) {
    std::list<Client> clients;
    for (int i = 0; i < 200; ++i) clients.push_back(connect(random));
    for (const auto start = steady_clock::now(); !stop_ && steady_clock::now() - start < lifetime;)
        std::this_thread::sleep_for(50ms);
    for (auto& client : clients) {
        client.send("still here");
        count(client, "still here", client.receive(10));
        end(client);
    }
}

void MixedLoad::reset_at_once(Random& random) {
    auto client = connect(random);
    const auto sent = piece(random, up_to(random, longest));
    ::send(client.fd(), sent.data(), sent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (up_to(random, 2) == 1) client.receive(1);
    reset(std::move(client));
    std::this_thread::sleep_for(1ms);
}

void MixedLoad::read_slowly(Random& random) {
    auto client = connect(random);
    const auto sent = piece(random, 200'000);
    client.send(sent);
    for (std::size_t at = 0; at < sent.size() && client.error() == 0; at += 2000) {
        count(client, sent.substr(at, 2000), client.receive(2000));
        if (!stop_) std::this_thread::sleep_for(10ms);
    }
    end(client);
}

}  // namespace echo_server
