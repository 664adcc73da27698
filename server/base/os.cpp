// SPDX-License-Identifier: BSD-2-Clause
#include "base/os.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <sstream>
#include <stdexcept>

#include "base/log.h"
#include "base/text.h"

namespace echo_server {
namespace {

class SystemError : public std::system_error {
 public:
    SystemError(std::string_view what, int error, std::string_view hint)
        : std::system_error(error, std::generic_category()),
          text_(fmt::format("{}: {}{}{}", what, error_text(error), hint.empty() ? "" : "; ", hint)) {}
    [[nodiscard]] const char* what() const noexcept override { return text_.what(); }

 private:
    std::runtime_error text_;  // not a string: copying a string can throw
};

// Fields of /proc/PROCESS/stat (proc(5)).
constexpr int parent_field = 4;
constexpr int terminal_field = 7;
constexpr int start_field = 22;

// 0 if the field can't be read, or if there is no parent or no terminal.
std::uint64_t field_of(const std::string& process, int number) {
    std::ifstream file(fmt::format("/proc/{}/stat", process));
    std::string text;
    std::getline(file, text, '\0');
    // Starts after the last bracket, because the name of the process can have blanks, brackets and newlines.
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::string value;
    for (int field = 3; field <= number; ++field) fields >> value;
    return parse_number<std::uint64_t>(value).value_or(0);
}

std::size_t descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

// The capabilities that the server needs count in this namespace only.
bool in_initial_user_namespace() {
    constexpr std::uint64_t initial = 0xEFFFFFFD;  // PROC_USER_INIT_INO in the kernel
    const auto inode = inode_of_namespace("user");
    return inode == 0 || inode == initial;  // 0: the kernel has no user namespaces
}

std::string how_to_get_descriptors(std::size_t wanted) {
    return fmt::format("the limit is {}: raise it ('ulimit -n {}', or LimitNOFILE in the systemd unit)",
                       descriptor_limit(), wanted);
}

sigset_t set_of(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) ::sigaddset(&set, signal);
    return set;
}

// By _exit(), because a destructor would wait for the step that hangs.
[[noreturn]] void end_start() {
    log_error("stopped by a signal before the start was complete");
    ::_exit(1);
}

void wait_for_stop() {
    const auto stops = set_of({SIGINT, SIGTERM});
    siginfo_t taken{};
    while (::sigwaitinfo(&stops, &taken) < 0) continue;
    if (taken.si_pid != ::getpid()) end_start();  // our own signal comes from ~StopsStart()
}

}  // namespace

void fail(std::string_view what, int error, std::string_view hint) {
    if (error == EPERM && !in_initial_user_namespace())
        hint =
            "BPF programs need the initial user namespace, and this is another one (of a rootless container, or by "
            "PrivateUsers= in a systemd unit): start echo-server outside of it";
    if (error == ENFILE) hint = "raise the limit of the host ('sysctl -w fs.file-max=N')";
    if (error == EMFILE) throw SystemError(what, error, how_to_get_descriptors(2 * descriptor_limit()));
    throw SystemError(what, error, hint);
}

Fd checked(int fd, std::string_view what) {
    if (fd < 0) fail(what);
    return Fd(fd);
}

const char* error_text(int error) noexcept {
    const char* text = ::strerrordesc_np(error);
    return text != nullptr ? text : "unknown error";
}

std::string read_sysctl(const std::string& name) {
    const Fd file(::open(("/proc/sys/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    // One call must have room for the whole value, or the kernel cuts it off. A list of every second port has 200 KB.
    std::string value(std::size_t{256} << 10U, '\0');
    const auto size = ::read(file.get(), value.data(), value.size());
    value.resize(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    value.resize(value.find_last_not_of('\n') + 1);
    return value;
}

void check_proc() {
    if (::access("/proc/thread-self/ns/net", F_OK) == 0) return;
    throw std::runtime_error(
        "looking for /proc/thread-self: /proc is not mounted, or it belongs to another PID namespace: mount it "
        "('mount -t proc proc /proc')");
}

Fd open_netns() {
    return checked(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), "opening /proc/thread-self/ns/net");
}

std::uint64_t inode_of_namespace(const std::string& kind) {
    struct stat status{};
    return ::stat(("/proc/thread-self/ns/" + kind).c_str(), &status) == 0 ? status.st_ino : 0;
}

std::uint64_t start_of_this_process() { return field_of("self", start_field); }

Fd open_process(pid_t pid, std::uint64_t start) {
    // Before 2.36 glibc has no wrapper.
    Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process || start == 0 || !proc_is_ours()) return process;
    // Read after the open: if the start time still matches, the PID belonged to this process when it was opened.
    const auto found = field_of(std::to_string(pid), start_field);
    if (found == 0 || found == start) return process;
    errno = ESRCH;
    return {};
}

bool proc_is_ours() {
    std::error_code error;
    return std::filesystem::read_symlink("/proc/self", error) == std::to_string(::getpid());
}

void raise_descriptor_limit() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::thread start_thread(std::function<void()> run) {
    try {
        return std::thread(std::move(run));
    } catch (const std::system_error& error) {
        fail("starting a thread", error.code().value(),
             "allow this user more threads ('ulimit -u', or TasksMax in the systemd unit), or lower --threads");
    }
}

void block_signals(std::initializer_list<int> signals) {
    const auto set = set_of(signals);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

StopsStart::StopsStart() : thread_(start_thread(wait_for_stop)) {}

StopsStart::~StopsStart() {
    ::pthread_kill(thread_.native_handle(), SIGINT);
    thread_.join();
}

void start_is_complete() {
    sigset_t pending;
    ::sigpending(&pending);
    if (::sigismember(&pending, SIGINT) == 1 || ::sigismember(&pending, SIGTERM) == 1) end_start();
}

StartTerminal::StartTerminal() {
    const auto leader = std::to_string(::getsid(0));
    std::ifstream file(fmt::format("/proc/{}/comm", leader));
    std::string name;
    if (std::getline(file, name) && name == "sudo") process_ = std::to_string(field_of(leader, parent_field));
    exists_ = field_of(process_, terminal_field) != 0;
    struct sigaction at_start{};
    is_ignored_ = ::sigaction(SIGHUP, nullptr, &at_start) == 0 && at_start.sa_handler == SIG_IGN;
}

bool StartTerminal::may_have_sent(const signalfd_siginfo& hangup) const {
    if (!exists_ || hangup.ssi_code == SI_KERNEL) return exists_;
    // 0 is a sender outside of this PID namespace. getsid() fails if a shell has ended since it sent the signal.
    const auto sender = static_cast<pid_t>(hangup.ssi_pid);
    const pid_t session = ::getsid(0);
    return sender != 0 && (sender == session || sender == parent_ || std::to_string(sender) == process_ ||
                           ::getsid(sender) == session);
}

bool StartTerminal::is_gone() const {
    try {
        return exists_ && field_of(process_, terminal_field) == 0;
    } catch (const std::bad_alloc&) {
        return false;  // not known
    }
}

Fd signal_descriptor(std::initializer_list<int> signals) {
    const auto set = set_of(signals);
    return checked(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd");
}

sigset_t take_signals(int descriptor, signalfd_siginfo* hangup) {
    auto set = set_of({});
    signalfd_siginfo taken{};
    // At most 8: in a storm of signals the loop might not end.
    for (int left = 8; left > 0 && ::read(descriptor, &taken, sizeof(taken)) == sizeof(taken); --left) {
        ::sigaddset(&set, static_cast<int>(taken.ssi_signo));
        if (hangup != nullptr && taken.ssi_signo == SIGHUP) *hangup = taken;
    }
    return set;
}

std::size_t connection_limit(std::optional<std::size_t> wanted) {
    // For what is opened later: the link; the maps again, for SIGUSR1 or to read another server's maps (9); the
    // housekeeper's two sockets and signals, and a command that waits (5); the ports file, netlink, /proc, a connection
    // that is being accepted; and a few spare ones.
    constexpr std::size_t reserve = 24;
    const auto limit = descriptor_limit();
    std::error_code error;
    const std::filesystem::directory_iterator open("/proc/self/fd", error);
    // Listing needs a descriptor itself: if it fails, none is free, unless /proc is missing (a probe works without it).
    const bool none_free = error && error != std::errc::no_such_file_or_directory;
    const auto kept = reserve + (none_free ? limit : static_cast<std::size_t>(std::distance(open, {})));
    const auto needed = kept + wanted.value_or(1);
    if (needed <= limit) return wanted.value_or(limit - kept);
    throw std::runtime_error(fmt::format("{} needs {} descriptors, {} of them for echo-server itself, and {}{}",
                                         wanted ? fmt::format("--max-connections {}", *wanted) : "even one connection",
                                         needed, kept, how_to_get_descriptors(needed),
                                         wanted ? ", or allow fewer connections" : ""));
}

void open_closed_standard_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        // open(2) returns the lowest free number, and all lower numbers are open by now.
        if (::fcntl(stream, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) < 0)
            fail("opening /dev/null for a standard stream that is closed");
    }
}

}  // namespace echo_server
