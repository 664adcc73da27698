// SPDX-License-Identifier: BSD-2-Clause
#include "echo/poller.h"

#include <sys/epoll.h>

#include <array>
#include <asio/post.hpp>
#include <cerrno>
#include <span>
#include <utility>

using asio::posix::stream_descriptor;

namespace echo_server {
namespace {

int new_epoll() {
    const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
    return epoll;
}

std::uint32_t events_of(Poller::Event event) {
    if (event == Poller::Event::room) return EPOLLOUT;
    // Only changes: EPOLLHUP, which is always told, begins when both sides have sent their FIN.
    if (event == Poller::Event::end) return EPOLLET;
    if (event == Poller::Event::input) return EPOLLIN;
    if (event == Poller::Event::input_once) return EPOLLIN | EPOLLONESHOT;
    // EPOLLPRI may come long before the urgent byte can be read: only edge-triggered it does not come again and again.
    return EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;
}

}  // namespace

Poller::Poller(asio::io_context& io, HandlerMemory& memory, OnEvent on_event)
    : io_(io), memory_(memory), epoll_(io, new_epoll()), on_event_(std::move(on_event)) {
    wait();
}

std::error_code Poller::watch(int socket, Session& session, Event event, bool fresh) {
    epoll_event wanted{.events = events_of(event), .data = {.ptr = &session}};
    if (::epoll_ctl(epoll_.native_handle(), fresh ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &wanted) == 0) return {};
    return {errno, std::generic_category()};
}

void Poller::forget(int socket) { ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_DEL, socket, nullptr); }

void Poller::wait() {
    epoll_.async_wait(stream_descriptor::wait_read, in_memory(memory_, [this](std::error_code error) {
                          if (!error) handle_events();
                      }));
}

void Poller::handle_events() {
    constexpr int max_events = 128;  // then other handlers have their turn: Asio calls as many at a time
    std::array<epoll_event, max_events> events;
    for (int handled = 0; handled < max_events;) {
        const int count = ::epoll_wait(epoll_.native_handle(), events.data(), max_events - handled, 0);
        if (count <= 0) return wait();
        // Within a batch a session ends only by its own event, so each pointer holds.
        for (const auto& event : std::span(events).first(static_cast<std::size_t>(count)))
            on_event_(*static_cast<Session*>(event.data.ptr), event.events == EPOLLIN);
        handled += count;
    }
    // Not to the executor of epoll_: of any type, it would allocate.
    asio::post(io_, in_memory(memory_, [this] { handle_events(); }));
}

}  // namespace echo_server
