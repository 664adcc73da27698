// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <sys/signalfd.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace echo_server {

/// Owns a file descriptor and closes it. Move-only.
class Fd {
 public:
    Fd() = default;
    /// Owns `fd` from now on; a negative number stands for no descriptor.
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(other.release()) {}
    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
    int fd_ = -1;
};

/// Throws a std::system_error whose what() is "WHAT: the system's words for `error`; HINT". `what` says what was tried,
/// on what; `hint`, if there is one, says what to do. Of a shortage of descriptors that is always to raise the limit,
/// of an EPERM in another user namespace to leave it.
[[noreturn]] void fail(std::string_view what, int error = errno, std::string_view hint = {});

/// Owns `fd`, which a system call has returned. If it is negative, throws as fail(what) does.
Fd checked(int fd, std::string_view what);

/// The system's words for `error`, an errno. Needs no memory.
const char* error_text(int error) noexcept;

/// The time of `clock`, such as CLOCK_BOOTTIME, which counts from the boot (clock_gettime(2)).
inline std::chrono::nanoseconds time_of(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// Reads the sysctl `name`, such as "net/ipv4/ip_local_port_range", in the network namespace of the calling thread;
/// without the newline; "" if it can't be read.
std::string read_sysctl(const std::string& name);

/// Throws std::runtime_error without /proc, which the server needs for namespaces, descriptors and other processes.
void check_proc();

/// Opens the network namespace of the calling thread. Throws std::system_error.
Fd open_netns();

/// Inode of the calling thread's namespace `kind`, such as "pid", or 0 if it can't be read. That of the network, "net",
/// is the one that 'bpftool link' shows; other threads of the process may be in another.
std::uint64_t inode_of_namespace(const std::string& kind);

// Other processes of this PID namespace. A PID can be used again; PID and start time, in clock ticks since the boot
// (field 22 of /proc/PID/stat, proc(5)), name a process for good.

/// When this process was started; 0 if that can't be read.
std::uint64_t start_of_this_process();

/// Opens the process `pid` (pidfd_open(2)). If it was not started at `start`, it is another process, and the error is
/// ESRCH, as if there were none. A `start` of 0 is not known.
Fd open_process(pid_t pid, std::uint64_t start);

/// False where /proc shows the processes of another PID namespace, as after unshare(1) without --mount-proc.
bool proc_is_ours();

/// Raises the soft limit of open descriptors (RLIMIT_NOFILE) to the hard limit.
void raise_descriptor_limit();

/// A thread that calls `run`. Throws std::system_error, which says what to do, if there can be none.
std::thread start_thread(std::function<void()> run);

/// Blocks `signals` in the calling thread and in threads that it starts. From then on they are read from descriptors;
/// of each the kernel keeps one, also if the parent ignored it.
void block_signals(std::initializer_list<int> signals);

/// As long as it exists, SIGINT and SIGTERM end the process at once, with a line and exit code 1: whatever hangs in the
/// start, and also if it is process 1 of a container. (By a thread: a handler does not run while the only thread
/// waits for a dead file server, which the kernel calls TASK_KILLABLE.)
class StopsStart {
 public:
    /// To be made with signals blocked. Throws std::system_error if there can be no thread.
    StopsStart();
    ~StopsStart();

 private:
    std::thread thread_;
};

/// Ends the process in the same way if SIGINT or SIGTERM has come: such a start must not end the process that it was to
/// replace. To be called once, before the first step that can't be taken back.
void start_is_complete();

/// The terminal at which this process was started, if there is one. Not the one that sudo(8) makes for its command
/// (use_pty), but that of sudo itself.
class StartTerminal {
 public:
    /// To be made while SIGHUP is blocked, and as it was at the start: ignored under nohup(1).
    StartTerminal();
    /// Whether `hangup`, a SIGHUP, can come from its end: the kernel sent it, or a process of this session or of sudo.
    [[nodiscard]] bool may_have_sent(const signalfd_siginfo& hangup) const;
    [[nodiscard]] bool is_gone() const;
    /// Whether the process shall outlive the terminal.
    [[nodiscard]] bool is_ignored() const { return is_ignored_; }

 private:
    std::string process_ = "self";  // in /proc: has the terminal
    pid_t parent_ = ::getppid();
    bool exists_;
    bool is_ignored_;
};

/// A signalfd(2) that is readable while one of `signals`, which are blocked, is pending. Throws std::system_error.
Fd signal_descriptor(std::initializer_list<int> signals);

/// Takes all of these that are pending, and tells of the last SIGHUP in `hangup`. Needs no memory.
sigset_t take_signals(int descriptor, signalfd_siginfo* hangup = nullptr);

/// The limit of open connections: `wanted`, or else the number of descriptors that are free now, less a reserve for
/// what the server opens later. Throws std::runtime_error if that leaves too few.
std::size_t connection_limit(std::optional<std::size_t> wanted);

/// Opens /dev/null for each of standard input, output and error that the parent has left closed: the next sockets
/// would get these numbers, and lines of the log would go to clients. To be called before anything else is opened.
/// Throws std::system_error.
void open_closed_standard_streams();

}  // namespace echo_server
