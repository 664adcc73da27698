// SPDX-License-Identifier: BSD-2-Clause
// The time in which echo-server starts, and changes all of its ports: runs the given command, measures its time, stops
// it, and prints 'METRIC,VALUE' lines. Ends with exit code 1 if the server says anything unexpected.
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/os.h"

using namespace echo_server;

namespace {

using std::chrono::steady_clock;
using milliseconds = std::chrono::duration<double, std::milli>;

constexpr std::chrono::seconds patience{30};

[[noreturn]] void fail(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

/// A running server, stopped by the destructor.
class Server {
 public:
    explicit Server(std::vector<std::string> command) {
        std::array<int, 2> ends{};
        if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail("opening a pipe");
        output_ = Fd(ends[0]);
        const Fd input(ends[1]);
        std::vector<char*> arguments;
        for (auto& argument : command) arguments.push_back(argument.data());
        arguments.push_back(nullptr);
        pid_ = ::fork();
        if (pid_ < 0) fail("starting a process");
        if (pid_ > 0) return;
        ::dup2(input.get(), STDOUT_FILENO);
        ::execvp(arguments[0], arguments.data());
        ::_exit(127);
    }
    ~Server() {
        ::kill(pid_, SIGTERM);
        ::waitpid(pid_, nullptr, 0);
    }
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    void signal(int number) const {
        if (::kill(pid_, number) != 0) fail("sending a signal");
    }

    // Reads lines up to the first line that begins with `text`, and returns that line.
    std::string wait_for(std::string_view text) {
        for (;;) {
            auto line = next_line();
            if (line.starts_with(text)) return line;
        }
    }

 private:
    std::string next_line() {
        for (;;) {
            if (const auto end = read_.find('\n'); end != std::string::npos) {
                auto line = read_.substr(0, end);
                read_.erase(0, end + 1);
                return line;
            }
            pollfd ready{.fd = output_.get(), .events = POLLIN, .revents = 0};
            const auto limit = std::chrono::milliseconds(patience).count();
            if (::poll(&ready, 1, static_cast<int>(limit)) != 1) throw std::runtime_error("the server says nothing");
            std::array<char, 4096> some{};
            const auto count = ::read(output_.get(), some.data(), some.size());
            if (count <= 0) throw std::runtime_error("the server has ended");
            read_.append(some.data(), static_cast<std::size_t>(count));
        }
    }

    Fd output_;
    std::string read_;
    pid_t pid_ = -1;
};

/// A file of ports that every user may read; removed by the destructor.
class PortsFile {
 public:
    PortsFile() {
        const Fd fd(::mkstemp(path_.data()));
        if (!fd || ::fchmod(fd.get(), 0644) != 0) fail(fmt::format("making the ports file {}", path_));
    }
    ~PortsFile() { ::unlink(path_.c_str()); }
    PortsFile(const PortsFile&) = delete;
    PortsFile& operator=(const PortsFile&) = delete;

    [[nodiscard]] const std::string& path() const { return path_; }
    void write(std::string_view ports) const { std::ofstream(path_) << ports << '\n'; }

 private:
    std::string path_ = (std::filesystem::temp_directory_path() / "echo-bench-ports-XXXXXX").string();
};

// From before fork() to the last line of the announcement.
void measure_start(const std::vector<std::string>& command) {
    const auto start = steady_clock::now();
    Server server(command);
    server.wait_for("  stop ");
    fmt::print("start to ready ms,{:.3f}\n", milliseconds(steady_clock::now() - start).count());
}

// The lower half of all ports is open. Measures from the signal until the upper half is open instead.
void measure_reload(std::vector<std::string> command) {
    const PortsFile file;
    file.write("1-32767");
    command.insert(command.end(), {"--ports-file", file.path()});
    Server server(command);
    server.wait_for("  stop ");
    file.write("32768-65535");
    const auto start = steady_clock::now();
    server.signal(SIGHUP);
    const auto line = server.wait_for("reloaded");
    const milliseconds took = steady_clock::now() - start;
    if (line.find("added 32768-65535; removed 1-32767;") == std::string::npos)
        throw std::runtime_error(fmt::format("it did not change every port: {}", line));
    fmt::print("SIGHUP to reloaded ms,{:.3f}\n", took.count());
}

void run(const std::vector<std::string>& arguments) {
    if (arguments.size() < 2 || (arguments[0] != "start" && arguments[0] != "reload"))
        throw std::runtime_error("give 'start COMMAND...', or 'reload COMMAND...' without ports");
    const std::vector<std::string> command(arguments.begin() + 1, arguments.end());
    if (arguments[0] == "start")
        measure_start(command);
    else
        measure_reload(command);
}

}  // namespace

int main(int argc, char** argv) {
    try {
        run({argv + 1, argv + argc});
        return 0;
    } catch (const std::exception& error) {
        fmt::print(stderr, "server-times: {}\n", error.what());
        return 1;
    }
}
