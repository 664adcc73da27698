// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <string_view>

#include "base/error.h"
#include "base/fd.h"
#include "base/file_rights.h"
#include "base/text.h"

namespace echo_server {
namespace {

// Every port on a line of its own, with a comment behind it, fits.
constexpr std::size_t max_size = 4U << 20U;

[[noreturn]] void fail_to_read(const std::string& path, std::string_view why) {
    throw std::runtime_error(fmt::format("reading ports file {}: {}", path, why));
}

[[noreturn]] void fail_to_read(const std::string& path, int error) { fail_to_read(path, error_text(error)); }

bool changed_since(const Fd& file, const struct stat& before) {
    struct stat now{};
    return ::fstat(file.get(), &now) != 0 || now.st_size != before.st_size ||
           now.st_mtim.tv_sec != before.st_mtim.tv_sec || now.st_mtim.tv_nsec != before.st_mtim.tv_nsec;
}

// O_PATH only looks at the file. Opening it for reading could have an effect, if it is a device, or wait for ever, if
// it is a FIFO. The path can be a trap of the user, and this process may be root.
Fd open_path(const std::string& path) { return Fd(::open(path.c_str(), O_PATH | O_CLOEXEC)); }

Fd open_for_reading(const Fd& looked_at) {
    const auto link = fmt::format("/proc/self/fd/{}", looked_at.get());
    return Fd(::open(link.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

// Such files look regular, and reading some of them has an effect: /proc/kmsg and trace_pipe lose what they show.
bool is_made_up_by_the_kernel(const Fd& looked_at) {
    struct statfs status{};
    if (::fstatfs(looked_at.get(), &status) != 0) return false;
    const std::array<decltype(status.f_type), 4> file_systems{PROC_SUPER_MAGIC, SYSFS_MAGIC, DEBUGFS_MAGIC,
                                                              TRACEFS_MAGIC};
    return std::ranges::find(file_systems, status.f_type) != file_systems.end();
}

struct stat status_of(const Fd& looked_at, const std::string& path) {
    if (!looked_at) fail_to_read(path, errno);
    struct stat status{};
    if (::fstat(looked_at.get(), &status) != 0) fail_to_read(path, errno);
    if (S_ISDIR(status.st_mode)) fail_to_read(path, EISDIR);
    if (!S_ISREG(status.st_mode)) fail_to_read(path, "it is not a regular file, so it can't be read again on SIGHUP");
    if (is_made_up_by_the_kernel(looked_at))
        fail_to_read(path, "it is no file, but a view of the kernel's; write the ports to a file");
    return status;
}

std::string read_whole(const Fd& looked_at, const std::string& path) {
    const auto status = status_of(looked_at, path);
    const Fd file = open_for_reading(looked_at);
    if (!file) fail_to_read(path, errno);

    std::string text;
    std::array<char, 16384> buffer;  // a thread's stack may be small
    while (text.size() <= max_size) {
        const auto count = ::read(file.get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_to_read(path, errno);
        if (count == 0) {
            if (changed_since(file, status))
                fail_to_read(path, "it changed while it was read: try again once it is complete");
            return text;
        }
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    fail_to_read(path, fmt::format("it is larger than {} MiB", max_size >> 20U));
}

// By the same path, which may lead through folders that are closed to the user. It must still lead to the same file:
// the user may have put another file there.
bool is_readable_by(const User& user, const Fd& file, const std::string& path) {
    try {
        const auto read = status_of(file, path);
        const FileRightsOf rights(user);
        const Fd looked_at = open_path(path);
        const auto now = status_of(looked_at, path);
        return now.st_dev == read.st_dev && now.st_ino == read.st_ino && open_for_reading(looked_at);
    } catch (const std::runtime_error&) {
        return false;
    }
}

// Windows editors write these marks.
std::string_view without_byte_order_mark(std::string_view text, const std::string& path) {
    constexpr std::string_view utf8 = "\xEF\xBB\xBF";
    if (text.starts_with(utf8)) text.remove_prefix(utf8.size());
    const bool marked = text.starts_with("\xFF\xFE") || text.starts_with("\xFE\xFF");
    const auto is_ascii_in_utf16 = [](char zero, unsigned char c) {
        return zero == '\0' && (std::isgraph(c) != 0 || std::isspace(c) != 0);
    };
    if (marked || (text.size() >= 2 && (is_ascii_in_utf16(text[0], text[1]) || is_ascii_in_utf16(text[1], text[0]))))
        fail_to_read(path, "it is text in UTF-16: save it as UTF-8");
    return text;
}

}  // namespace

PortList read_ports_file(const std::string& path, const User& reader) {
    const Fd file = open_path(path);
    return parse_ports_file(read_whole(file, path), path, [&] { return is_readable_by(reader, file, path); });
}

std::string why_not_readable(const std::string& path, const User& user) {
    try {
        const FileRightsOf rights(user);
        if (::faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) return error_text(errno);
    } catch (const std::runtime_error&) {
        // The kernel does not allow the attempt.
    }
    return {};
}

PortList parse_ports_file(std::string_view text, const std::string& path, const std::function<bool()>& may_quote) {
    text = without_byte_order_mark(text, path);
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
            const auto* why =
                may_quote() ? error.what() : "it is no port list; only who may read the file is shown the line";
            throw std::runtime_error(fmt::format("{}:{}: {}", path, number, why));
        }
    }
    if (list.empty()) fail_to_read(path, "it lists no ports; write at least one, such as 7");
    return list;
}

}  // namespace echo_server
