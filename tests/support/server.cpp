// SPDX-License-Identifier: BSD-2-Clause
#include "support/server.h"

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace echo_server {

bool start_is_over(Process& server) {
    return eventually([&] {
        const auto& output = server.output();
        return output.find("  stop ") != std::string::npos || output.starts_with("echo-server: ");
    });
}

Server::Server(const Netns& netns, const Command& arguments, const std::function<void()>& in_child)
    : Process(netns, echo_server(arguments), in_child) {
    wait_for("  stop ");
}

std::string Server::reload() {
    signal(SIGHUP);
    return next_line();
}

namespace {

/// Copies of the binary and of the library of inject_fault.h, in a folder that every user may enter, because the
/// build's folder may be closed to them. Also, a path in LD_PRELOAD can't have a blank.
class PublicCopies {
 public:
    PublicCopies() {
        const auto where = std::filesystem::temp_directory_path();
        struct statvfs file_system{};
        REQUIRE(::statvfs(where.c_str(), &file_system) == 0);
        if ((file_system.f_flag & ST_NOEXEC) != 0)
            FAIL("no program can run in ", where.string(),
                 ", which is mounted noexec: set TMPDIR to a folder that every user may enter");
        REQUIRE(::mkdtemp(folder_.data()) != nullptr);
        REQUIRE(::chmod(folder_.c_str(), 0755) == 0);
        std::filesystem::copy_file(ECHO_SERVER, server());
        std::filesystem::copy_file(FAULTS, faults());
    }
    ~PublicCopies() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    PublicCopies(const PublicCopies&) = delete;
    PublicCopies& operator=(const PublicCopies&) = delete;

    [[nodiscard]] std::string server() const { return folder_ + "/echo-server"; }
    [[nodiscard]] std::string faults() const { return folder_ + "/libfaults.so"; }

 private:
    std::string folder_ = temporary_name();
};

const PublicCopies& copies() {
    static const PublicCopies copies;
    return copies;
}

}  // namespace

std::string faults_library() { return copies().faults(); }

Command echo_server(const Command& arguments) {
    Command command{copies().server()};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return command;
}

TempFile::TempFile(std::string_view text) {
    const Fd file(::mkstemp(path_.data()));
    REQUIRE(file);
    REQUIRE(::fchmod(file.get(), 0644) == 0);  // a server reads it as the user nobody
    write(text);
}

TempFile::~TempFile() { ::unlink(path_.c_str()); }

void TempFile::write(std::string_view text) const {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file << text;
    REQUIRE(file.flush());
}

namespace {

std::string match(const std::string& text, const std::string& pattern) {
    std::smatch found;
    if (!std::regex_search(text, found, std::regex(pattern))) FAIL("no ", pattern, " in: ", text);
    return found[1];
}

std::string show_links(const Netns& netns) {
    Result shown;
    // bpftool gives up while somebody else on the machine makes a program.
    REQUIRE(eventually([&] { return (shown = run(netns, {"bpftool", "link"})).code == 0; }));
    return shown.output;
}

}  // namespace

bool status_shows(const Netns& netns, std::string_view text) {
    return run_ok(netns, echo_server({"status"})).find(text) != std::string::npos;
}

std::size_t count_links(const Netns& netns) {
    return count(show_links(netns), fmt::format("netns_ino {} ", netns.inode()));
}

void detach_program(const Netns& netns) { run_ok(netns, {"bpftool", "link", "detach", "id", BpfObjects(netns).link}); }

bool nothing_left(const Netns& netns) {
    return eventually([&] {
        return run(netns, echo_server({"status"})).output ==
                   "echo-server: no echo-server runs in this network namespace\n" &&
               count_links(netns) == 0;
    });
}

BpfObjects::BpfObjects(const Netns& netns) : netns_(netns) {
    const auto links = show_links(netns);
    const auto pattern = fmt::format(R"((\d+): netns  prog (\d+)\s+netns_ino {} )", netns.inode());
    std::smatch found;
    if (!std::regex_search(links, found, std::regex(pattern))) FAIL("no link here: ", links);
    if (std::regex_search(found.suffix().str(), std::regex(pattern))) FAIL("more than one link here: ", links);
    link = found[1];
    program = found[2];
    const auto shown = run_ok(netns, {"bpftool", "prog", "show", "id", program});
    std::istringstream ids(match(shown, R"(map_ids (\S+))"));
    for (std::string id; std::getline(ids, id, ',');) {
        const auto name = match(run_ok(netns, {"bpftool", "map", "show", "id", id}), R"(name (\S+))");
        maps[name] = id;
    }
}

bool BpfObjects::gone() const {
    const auto shows = [&](const char* kind, const std::string& id) {
        return run(netns_, {"bpftool", kind, "show", "id", id}).code == 0;
    };
    return eventually([&] {
        return !shows("link", link) && !shows("prog", program) &&
               std::ranges::none_of(maps, [&](const auto& map) { return shows("map", map.second); });
    });
}

}  // namespace echo_server
