// SPDX-License-Identifier: BSD-2-Clause
#include "support/process.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "support/guard.h"

namespace echo_server {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

namespace {

// The text behind `name` in a file with lines such as "name:  1234".
long number_in(const std::string& path, std::string_view name) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(fmt::format("{}:", name))) return std::stol(line.substr(name.size() + 1));
    FAIL("no such line in ", path, ": ", std::string(name));
    return 0;
}

// The fields of /proc/PID/stat from the third on, the state: the name before it can contain blanks (proc(5)).
std::vector<std::string> stat_fields(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    const std::vector<std::string> split(std::istream_iterator<std::string>(fields), {});
    REQUIRE(split.size() > 12);
    return split;
}

}  // namespace

bool eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
    const auto deadline = steady_clock::now() + limit;
    while (!condition()) {
        if (steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(5ms);
    }
    return true;
}

std::size_t count(std::string_view text, std::string_view piece) {
    std::size_t found = 0;
    for (auto at = text.find(piece); at != std::string_view::npos; at = text.find(piece, at + 1)) ++found;
    return found;
}

Process::Process(const Netns& netns, const Command& command, const std::function<void()>& in_child) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    out_ = Fd(ends[0]);
    const Fd in(ends[1]);
    std::vector<char*> arguments;
    for (const auto& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);

    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ > 0) {
        kill_at_our_end(pid_);
        return;
    }
    sigset_t no_signal;
    sigemptyset(&no_signal);
    ::sigprocmask(SIG_SETMASK, &no_signal, nullptr);
    if (::setns(netns.fd(), CLONE_NEWNET) != 0) ::_exit(126);
    const Fd nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ::dup2(nothing.get(), STDIN_FILENO);
    ::dup2(in.get(), STDOUT_FILENO);
    ::dup2(in.get(), STDERR_FILENO);
    if (in_child) in_child();
    ::execvp(arguments[0], arguments.data());
    fmt::print(stderr, "{}: {}\n", command[0], std::generic_category().message(errno));
    ::_exit(127);
}

Process::~Process() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

bool Process::read_some(std::chrono::milliseconds timeout) {
    pollfd ready{.fd = out_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, static_cast<int>(timeout.count())) <= 0) return false;
    std::array<char, 65536> buffer;
    const auto count = ::read(out_.get(), buffer.data(), buffer.size());
    if (count <= 0) return false;
    output_.append(buffer.data(), static_cast<std::size_t>(count));
    return true;
}

const std::string& Process::output() {
    while (read_some(0ms)) continue;
    return output_;
}

std::string Process::next_line() {
    const auto deadline = steady_clock::now() + time_limit;
    for (;;) {
        if (const auto end = output_.find('\n', seen_); end != std::string::npos) {
            auto line = output_.substr(seen_, end - seen_);
            seen_ = end + 1;
            return line;
        }
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now());
        if (left <= 0ms || !read_some(left)) FAIL("no further line in the output: ", output_);
    }
}

std::string Process::wait_for(std::string_view text) {
    auto line = next_line();
    while (line.find(text) == std::string::npos) line = next_line();
    return line;
}

void Process::signal(int number) const { REQUIRE(::kill(pid_, number) == 0); }

void Process::freeze() const {
    REQUIRE(eventually([&] { return stat_fields(pid_).front() == "S"; }));
    int status = 0;
    signal(SIGSTOP);
    REQUIRE(::waitpid(pid_, &status, WUNTRACED) == pid_);
    REQUIRE(WIFSTOPPED(status));
}

int Process::wait() {
    // The end of the process closes the pipe. There is a limit, because a process that does not end would hang the
    // suite.
    const auto deadline = steady_clock::now() + time_limit;
    while (steady_clock::now() < deadline && read_some(time_limit)) continue;
    int status = 0;
    rusage used{};
    if (!eventually([&] { return ::wait4(pid_, &status, WNOHANG, &used) == pid_; })) FAIL("it does not end: ", output_);
    pid_ = -1;
    peak_kb_ = used.ru_maxrss;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::chrono::milliseconds Process::cpu_time() const {
    const auto fields = stat_fields(pid_);
    const auto user_and_system = std::stol(fields[11]) + std::stol(fields[12]);
    return std::chrono::milliseconds(user_and_system * 1000 / ::sysconf(_SC_CLK_TCK));
}

long Process::status_kb(std::string_view name) const { return number_in(fmt::format("/proc/{}/status", pid_), name); }

long Process::bytes_read() const { return number_in(fmt::format("/proc/{}/io", pid_), "rchar"); }

bool ends(const Process& process) {
    return eventually([&] {
        siginfo_t info{};
        return ::waitid(P_PID, static_cast<id_t>(process.pid()), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid == process.pid();
    });
}

bool comes_to_rest(const Process& process) {
    return eventually([&] {
        const auto cpu = process.cpu_time();
        std::this_thread::sleep_for(500ms);
        return process.cpu_time() - cpu <= 10ms;
    });
}

std::ptrdiff_t descriptors_of(const Process& process) {
    namespace fs = std::filesystem;
    return std::distance(fs::directory_iterator(fmt::format("/proc/{}/fd", process.pid())), {});
}

Result run(const Netns& netns, const Command& command, const std::function<void()>& in_child) {
    Process process(netns, command, in_child);
    const int code = process.wait();
    return {code, process.output()};
}

std::string run_ok(const Netns& netns, const Command& command) {
    const auto [code, output] = run(netns, command);
    if (code != 0) FAIL(fmt::format("{}", fmt::join(command, " ")), ": exit code ", code, ": ", output);
    return output;
}

}  // namespace echo_server
