// SPDX-License-Identifier: BSD-2-Clause
#include "service/signal_loop.h"

#include <fcntl.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/signals.h"

using asio::posix::stream_descriptor;
using std::chrono::steady_clock;

namespace echo_server {

SignalLoop::SignalLoop(asio::io_context& io, HandlerMemory& memory, int signal, std::optional<int> done)
    : memory_(memory), signal_(io, signal_descriptor({signal}).release()), done_(io), pause_(io) {
    if (done) done_.assign(::fcntl(*done, F_DUPFD_CLOEXEC, 0));
}

void SignalLoop::start(Steps steps) {
    steps_ = std::move(steps);
    // Begin with a pause of no time: the first use of a timer allocates, and later there may be no memory.
    began_ = steady_clock::now();
    pause();
}

void SignalLoop::wait_for_signal() {
    signal_.async_wait(stream_descriptor::wait_read, in_memory(memory_, [this](std::error_code error) {
                           if (error) return;
                           consume_signal(signal_.native_handle());
                           began_ = steady_clock::now();
                           if (steps_.begin()) return wait_for_end();
                           pause();
                       }));
}

void SignalLoop::wait_for_end() {
    done_.async_wait(stream_descriptor::wait_read, in_memory(memory_, [this](std::error_code error) {
                         if (error) return;
                         if (steps_.finish()) return wait_for_end();
                         pause();
                     }));
}

// But max a second, because the work may have waited for a file system that hung.
void SignalLoop::pause() {
    constexpr steady_clock::duration max_pause = std::chrono::seconds(1);
    pause_.expires_after(std::min(steady_clock::now() - began_, max_pause));
    pause_.async_wait(in_memory(memory_, [this](std::error_code) { wait_for_signal(); }));
}

}  // namespace echo_server
