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
    /// Owns `fd`, or nothing if it is negative.
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

/// Throws a std::system_error whose what() is "WHAT: ERROR; HINT". `what` says what was tried, and on what. ERROR is
/// error_text(error). `hint`, which may be empty, says what to do. Two hints are built in, and win: to raise the limit
/// if descriptors are short, and to leave another user namespace than the initial one if the error is EPERM.
[[noreturn]] void fail(std::string_view what, int error = errno, std::string_view hint = {});

/// Owns `fd`, which a system call has returned. If it is negative, throws as fail(what) does.
Fd checked(int fd, std::string_view what);

/// The English text of `error`, an errno (strerror(3)). Needs no memory.
const char* error_text(int error) noexcept;

/// The time of `clock`, such as CLOCK_BOOTTIME, which counts from the boot (clock_gettime(2)).
inline std::chrono::nanoseconds time_of(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

/// Reads the sysctl `name`, such as "net/ipv4/ip_local_port_range", in the network namespace of the calling thread.
/// Returns its value without the newline, or "" if it can't be read.
std::string read_sysctl(const std::string& name);

/// Throws std::runtime_error if /proc is missing: the server needs it for namespaces, descriptors and other processes.
void check_proc();

/// Opens the network namespace of the calling thread. Throws std::system_error.
Fd open_netns();

/// Inode of the calling thread's namespace `kind`, such as "pid", or 0 if it can't be read. 'bpftool link' shows the
/// inode of "net", the network namespace. Other threads of the process may be in another namespace.
std::uint64_t inode_of_namespace(const std::string& kind);

// Other processes of this PID namespace. As the kernel uses PIDs again, a process is named by its PID and its start
// time, in clock ticks since the boot (field 22 of /proc/PID/stat, proc(5)).

/// When this process was started; 0 if that can't be read.
std::uint64_t start_of_this_process();

/// Opens the process `pid` (pidfd_open(2)). If it was not started at `start`, it is another process: the error is then
/// ESRCH, as for a process that does not exist. A `start` of 0 is not checked.
Fd open_process(pid_t pid, std::uint64_t start);

/// False where /proc shows the processes of another PID namespace, as after unshare(1) without --mount-proc.
bool proc_is_ours();

/// Raises the soft limit of open descriptors (RLIMIT_NOFILE) to the hard limit.
void raise_descriptor_limit();

/// Starts a thread that calls `run`. Throws std::system_error, with a hint, if the system refuses it.
std::thread start_thread(std::function<void()> run);

/// Blocks `signals` in the calling thread and in threads that it starts later, so that descriptors can read them. The
/// kernel keeps one of each signal, even if the parent process ignored it.
void block_signals(std::initializer_list<int> signals);

/// As long as it exists, SIGINT and SIGTERM end the process at once, with a log line and exit code 1, even if the start
/// hangs, and even as process 1 of a container. Uses a thread: while the only thread waits for a dead file server (in
/// the state TASK_KILLABLE), no handler runs.
class StopsStart {
 public:
    /// To be made while both signals are blocked. Throws std::system_error if the system refuses the thread.
    StopsStart();
    ~StopsStart();

 private:
    std::thread thread_;
};

/// Ends the process in the same way if SIGINT or SIGTERM is pending, so that a start that was stopped does not replace
/// a running server. To be called once, before the first step that can't be undone.
void start_is_complete();

/// The terminal at which this process was started, if there is one. If sudo(8) made a terminal for its command
/// (use_pty), it is the terminal of sudo itself.
class StartTerminal {
 public:
    /// To be made while SIGHUP is blocked, and before its action is changed: nohup(1) starts a command that ignores it.
    StartTerminal();
    /// Whether `hangup`, a SIGHUP, can mean that the terminal is gone: the kernel sent it, or a process of this session
    /// or of sudo.
    [[nodiscard]] bool may_have_sent(const signalfd_siginfo& hangup) const;
    [[nodiscard]] bool is_gone() const;
    /// Whether SIGHUP is ignored: then the process is to outlive the terminal.
    [[nodiscard]] bool is_ignored() const { return is_ignored_; }

 private:
    std::string process_ = "self";  // name in /proc of the process that has the terminal
    pid_t parent_ = ::getppid();
    bool exists_;
    bool is_ignored_;
};

/// A signalfd(2) for `signals`, which must be blocked. Throws std::system_error.
Fd signal_descriptor(std::initializer_list<int> signals);

/// Takes all pending signals of `descriptor`, and copies the last SIGHUP to `hangup`. Needs no memory.
sigset_t take_signals(int descriptor, signalfd_siginfo* hangup = nullptr);

/// The limit of open connections: `wanted`, or by default the number of free descriptors, less a reserve for what the
/// server opens later. Throws std::runtime_error if the descriptors are too few.
std::size_t connection_limit(std::optional<std::size_t> wanted);

/// Opens /dev/null for standard input, output and error where the parent has closed them. Otherwise sockets would get
/// these numbers, and clients would get log lines. To be called before anything else is opened. Throws
/// std::system_error.
void open_closed_standard_streams();

}  // namespace echo_server
