// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/eventfd.h>

#include <functional>
#include <future>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include "base/fd.h"
#include "base/os.h"

namespace echo_server {

/// Runs work that may be slow, or hang with a file system, in a thread of its own, one piece at a time. If this
/// object goes first, the thread goes on alone: `work` must own everything that it uses.
template <typename Result>
class Background {
 public:
    /// Throws std::system_error.
    Background() : done_(std::make_shared<Fd>(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {
        if (!*done_) fail("eventfd");
    }
    ~Background() {
        if (thread_.joinable()) thread_.detach();
    }
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    /// Starts `work`. The result of earlier work must have been fetched. The thread has the calling thread's user and
    /// capabilities. Throws std::system_error if there can be no thread, or std::bad_alloc.
    void start(std::function<Result()> work) {
        std::packaged_task<Result()> task(std::move(work));
        auto future = task.get_future();
        try {
            thread_ = std::thread([task = std::move(task), done = done_]() mutable {
                task();
                ::eventfd_write(done->get(), 1);
            });
        } catch (const std::system_error& error) {
            fail("starting a thread", error.code().value());
        }
        result_ = std::move(future);
    }

    /// An eventfd(2) that is readable from the end of the work until result() is called.
    [[nodiscard]] int done() const { return done_->get(); }

    /// Waits for the end of the work; returns what it returned, or throws what it threw.
    Result result() {
        thread_.join();
        eventfd_t ignored = 0;
        ::eventfd_read(done(), &ignored);
        return result_.get();
    }

 private:
    std::shared_ptr<const Fd> done_;
    std::thread thread_;
    std::future<Result> result_;
};

}  // namespace echo_server
