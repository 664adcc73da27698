// SPDX-License-Identifier: BSD-2-Clause
#include "ports_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "fd.h"
#include "text.h"

namespace {

// Every port on a line of its own, with a comment behind it, fits.
constexpr std::size_t max_size = 4U << 20U;

[[noreturn]] void fail(const std::string& path, std::string_view why) {
    throw std::runtime_error(fmt::format("reading ports file {}: {}", path, why));
}

[[noreturn]] void fail(const std::string& path, int error) { fail(path, std::generic_category().message(error)); }

// As it does while somebody writes to it.
bool changed_since(const Fd& file, const struct stat& before) {
    struct stat now {};
    return ::fstat(file.get(), &now) != 0 || now.st_size != before.st_size ||
           now.st_mtim.tv_sec != before.st_mtim.tv_sec || now.st_mtim.tv_nsec != before.st_mtim.tv_nsec;
}

std::string read_whole(const std::string& path) {
    // Without O_NONBLOCK, opening a FIFO would hold up the whole server until somebody writes to it.
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!file) fail(path, errno);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) fail(path, errno);
    if (S_ISDIR(status.st_mode)) fail(path, EISDIR);
    if (!S_ISREG(status.st_mode)) fail(path, "it is not a regular file, so it can't be read again on SIGHUP");

    std::string text;
    std::array<char, 65536> buffer;
    while (text.size() <= max_size) {
        const auto count = ::read(file.get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail(path, errno);
        if (count == 0) {
            if (changed_since(file, status)) fail(path, "it changed while it was read: try again once it is complete");
            return text;
        }
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    fail(path, fmt::format("it is larger than {} MiB", max_size >> 20U));
}

}  // namespace

PortList read_ports_file(const std::string& path) { return parse_ports_file(read_whole(path), path); }

PortList parse_ports_file(std::string_view text, const std::string& path) {
    PortList list;
    int number = 0;
    for (std::size_t start = 0; start < text.size();) {
        const auto end = text.find('\n', start);
        auto line = text.substr(start, end - start);
        start = end == std::string::npos ? text.size() : end + 1;
        ++number;

        line = trim(line.substr(0, line.find('#')));
        if (line.empty()) continue;
        try {
            list.add(line);
        } catch (const PortListError& error) {
            throw std::runtime_error(fmt::format("{}:{}: {}", path, number, error.what()));
        }
    }
    if (list.empty()) fail(path, "it lists no ports; write at least one, such as 7");
    return list;
}
