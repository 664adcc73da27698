// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <atomic>
#include <thread>
#include <utility>

namespace echo_server {

/// Does something again and again without a pause, on a thread of its own, until stop() or the destructor.
class Storm {
 public:
    template <typename Once>
    explicit Storm(Once once)
        : thread_([this, once = std::move(once)](const std::stop_token& stop) mutable {
              for (; !stop.stop_requested(); ++times_) once();
          }) {}

    /// How often it was done so far.
    [[nodiscard]] long times() const { return times_; }
    /// Returns after the last time.
    void stop() { thread_ = {}; }

 private:
    std::atomic<long> times_ = 0;
    std::jthread thread_;
};

}  // namespace echo_server
