// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/temporary.h"

namespace echo_server {

namespace {

/// A folder of the test, with the file "ports" in it.
class Folder {
 public:
    Folder() {
        REQUIRE(::mkdtemp(folder_.data()) != nullptr);
        path = folder_ + "/ports";
    }
    ~Folder() { std::filesystem::remove_all(folder_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    void write(std::string_view text) const {
        std::ofstream file(path, std::ios::binary | std::ios::trunc);
        file << text;
        REQUIRE(file.flush());
    }

    [[nodiscard]] std::string ports() const { return read_ports_file(path).ports().to_string(); }

    [[nodiscard]] std::string refusal() const {
        try {
            return "taken as " + ports();
        } catch (const std::runtime_error& error) {
            return error.what();
        }
    }

    std::string path;

 private:
    std::string folder_ = temporary_name();
};

std::string largest_file_of(const std::string& line) {
    std::string text;
    while (text.size() + line.size() <= (4U << 20U)) text += line;
    return text;
}

std::chrono::microseconds cpu_time() {
    timespec used{};
    REQUIRE(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used) == 0);
    return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::seconds(used.tv_sec) +
                                                                 std::chrono::nanoseconds(used.tv_nsec));
}

}  // namespace

TEST_CASE("ports file: lines, comments, blanks and line ends of all kinds") {
    const Folder folder;
    struct Case {
        std::string text;
        std::string ports;
    };
    const std::vector<Case> cases = {
        {"7", "7"},
        {"7\n", "7"},
        {"7,77\n777\n", "7,77,777"},
        {"# echo\n\n  \t\n7 # RFC 862\n#77\n", "7"},
        {"1-1024\n!22 # ssh\n", "1-21,23-1024"},
        {"7\r\n77\r\n", "7,77"},
        {"!22\n", "none"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.text);
        folder.write(row.text);
        CHECK(folder.ports() == row.ports);
    }
}

TEST_CASE("ports file: a byte order mark is skipped") {
    const Folder folder;
    folder.write(
        "\xEF\xBB\xBF"
        "7\n");
    CHECK(folder.ports() == "7");
    folder.write("\xEF\xBB\xBF# echo\n7\n");
    CHECK(folder.ports() == "7");
}

TEST_CASE("ports file: a wrong line is named by file and number") {
    const Folder folder;
    folder.write("7\n# comment\n70000, 8\n9\n");
    CHECK(folder.refusal().starts_with(folder.path + ":3: '70000' is not allowed here"));
    folder.write("7\n77,\n");
    CHECK(
        folder.refusal().starts_with(folder.path + ":2: '77,' has two commas in a row, or a comma at an end: write "));
    folder.write(
        std::string_view("\x7f"
                         "ELF\0\1\n7\n",
                         9));
    CHECK(folder.refusal().starts_with(folder.path + ":1: '\\x7fELF\\x00\\x01' is not allowed here"));
    folder.write(std::string_view("7\0\n\0", 4));  // UTF-16
    CHECK(folder.refusal().starts_with(folder.path + ":1: '7\\x00' is not allowed here"));
}

TEST_CASE("ports file: refused if it can't be read whole, or lists nothing") {
    const Folder folder;
    const auto reading = "reading ports file " + folder.path + ": ";
    CHECK(folder.refusal() == reading + "No such file or directory");
    for (const auto* text : {"", "\n\n", "# nothing\n"}) {
        folder.write(text);
        CHECK(folder.refusal() == reading + "it lists no ports; write at least one, such as 7");
    }

    folder.write(std::string(5U << 20U, '\n') + "7");
    CHECK(folder.refusal() == reading + "it is larger than 4 MiB");

    std::filesystem::remove(folder.path);
    std::filesystem::create_directory(folder.path);
    CHECK(folder.refusal() == reading + "Is a directory");
    std::filesystem::remove(folder.path);
    REQUIRE(::mkfifo(folder.path.c_str(), 0600) == 0);
    CHECK(folder.refusal() == reading + "it is not a regular file, so it can't be read again on SIGHUP");
    std::filesystem::remove(folder.path);
    std::filesystem::create_symlink(folder.path, folder.path);
    CHECK(folder.refusal() == reading + "Too many levels of symbolic links");
}

TEST_CASE("ports file: every port on a line of its own fits") {
    const Folder folder;
    std::string text;
    for (int port = 1; port <= 65535; ++port) text += std::to_string(port) + "  # some words on what it is\n";
    folder.write(text);
    CHECK(folder.ports() == "1-65535");
}

TEST_CASE("ports file: a range on each line costs little more than a port on each line") {
    const auto cpu_of = [](const std::string& line) {
        const auto text = largest_file_of(line).substr(0, 1U << 20U);  // a sanitizer would need a minute for all
        const auto start = cpu_time();
        CHECK_FALSE(parse_ports_file(text, "ports").ports().empty());
        return cpu_time() - start;
    };
    const auto of_ports = cpu_of("  65535\n");
    const auto of_ranges = cpu_of("1-65535\n");
    MESSAGE("1 MiB of ports: ", of_ports.count(), " us, of ranges: ", of_ranges.count(), " us of CPU time");
    CHECK(of_ranges < 200 * of_ports);  // a loop over bits needs 800 times as much
}

}  // namespace echo_server
