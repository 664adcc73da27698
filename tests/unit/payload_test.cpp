// SPDX-License-Identifier: BSD-2-Clause
#include "probe/probe.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "support/temporary.h"

namespace echo_server {

using namespace std::string_literals;

namespace {

/// Reads the bytes of a message in order; missing bytes fail the test.
class Bytes {
 public:
    explicit Bytes(std::string bytes) : left_(std::move(bytes)) {}

    std::string take(std::size_t size) {
        REQUIRE(size <= left_.size());
        auto taken = left_.substr(0, size);
        left_.erase(0, size);
        return taken;
    }
    /// The bytes after a number of `width` bytes that says how many they are.
    std::string counted(unsigned width) {
        std::size_t size = 0;
        for (const char byte : take(width)) size = (size << 8U) + static_cast<unsigned char>(byte);
        return take(size);
    }
    [[nodiscard]] bool empty() const { return left_.empty(); }

 private:
    std::string left_;
};

/// The extensions of the ClientHello that is sent to `host`, by their types.
std::map<std::string, std::string> extensions_for(const std::string& host) {
    Bytes record(make_payload("tls", 0, host));
    CHECK(record.take(3) == "\x16\x03\x01");
    Bytes handshake(record.counted(2));
    CHECK(record.empty());
    CHECK(handshake.take(1) == "\x01");
    Bytes hello(handshake.counted(3));
    CHECK(handshake.empty());
    CHECK(hello.take(2) == "\x03\x03");
    hello.take(32);
    CHECK(hello.counted(1).size() == 32);
    const auto ciphers = hello.counted(2);
    CHECK(ciphers.starts_with("\x13\x01"));
    CHECK(ciphers.find("\xc0\x2f") % 2 == 0);
    CHECK(hello.counted(1) == "\0"s);
    Bytes extensions(hello.counted(2));
    CHECK(hello.empty());
    std::map<std::string, std::string> by_type;
    while (!extensions.empty()) {
        const auto type = extensions.take(2);
        CHECK(by_type.emplace(type, extensions.counted(2)).second);
    }
    return by_type;
}

std::string refused_payload(const std::string& kind) {
    try {
        return "taken as " + make_payload(kind, 64, "192.0.2.2");
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

/// A file of `size` bytes.
class PayloadFile {
 public:
    explicit PayloadFile(std::size_t size) {
        const int fd = ::mkstemp(path_.data());
        REQUIRE(fd >= 0);
        ::close(fd);
        std::filesystem::resize_file(path_, size);
    }
    ~PayloadFile() { std::filesystem::remove(path_); }
    PayloadFile(const PayloadFile&) = delete;
    PayloadFile& operator=(const PayloadFile&) = delete;

    [[nodiscard]] std::string kind() const { return "@" + path_; }

 private:
    std::string path_ = temporary_name();
};

}  // namespace

TEST_CASE("payload: each 256 bytes of the pattern have every value, and no two of 16 MiB are the same") {
    const auto bytes = make_payload("", max_payload, "192.0.2.2");
    REQUIRE(bytes.size() == max_payload);
    std::set<std::string_view> blocks;
    std::size_t whole = 0;
    for (std::size_t at = 0; at < bytes.size(); at += 256) {
        const auto block = std::string_view(bytes).substr(at, 256);
        std::vector<bool> found(256);
        for (const char byte : block) found[static_cast<unsigned char>(byte)] = true;
        whole += found == std::vector<bool>(256, true) ? 1 : 0;
        blocks.insert(block);
    }
    CHECK(whole == 65536);
    CHECK(blocks.size() == 65536);
}

TEST_CASE("payload: of any size it is the beginning of the same pattern, in which a shift changes nearly every byte") {
    const auto bytes = make_payload("", 4096, "192.0.2.2");
    CHECK(make_payload("", 1, "192.0.2.2") == bytes.substr(0, 1));
    CHECK(make_payload("", 1448, "192.0.2.2") == bytes.substr(0, 1448));
    for (std::size_t shift = 1; shift < 1024; ++shift) {
        CAPTURE(shift);
        std::size_t same = 0;
        for (std::size_t at = shift; at < bytes.size(); ++at) same += bytes[at] == bytes[at - shift] ? 1 : 0;
        CHECK(same < bytes.size() / 16);
    }
}

TEST_CASE("payload: a ClientHello is well-formed, and offers TLS 1.3 and 1.2") {
    const auto extensions = extensions_for("echo.example");
    CHECK(extensions.at("\0\0"s) == "\0\x0f\0\0\x0c"s + "echo.example");
    CHECK(extensions.at("\0\x2b"s) == "\x04\x03\x04\x03\x03");
    CHECK(extensions.at("\0\x2d"s) == "\x01\x01");
    CHECK(extensions.at("\0\x10"s) == "\0\x0c\x02h2\x08http/1.1"s);
    CHECK(extensions.at("\0\x0a"s).starts_with("\0\x06\0\x1d"s));
    CHECK(extensions.at("\0\x0d"s).starts_with("\0\x10\x04\x03"s));
    const auto key_share = extensions.at("\0\x33"s);
    CHECK(key_share.starts_with("\0\x24\0\x1d\0\x20"s));
    CHECK(key_share.size() == 38);
}

TEST_CASE("payload: a ClientHello has a name but no address, and HTTP has addresses in brackets, without their zone") {
    struct Case {
        std::string host;
        std::string server_name;  // "" for none
        std::string http_host;
    };
    const std::vector<Case> cases = {
        {"echo.example", "echo.example", "echo.example"},
        {"echo.example.", "echo.example", "echo.example"},
        {"localhost", "localhost", "localhost"},
        {"1.example", "1.example", "1.example"},
        {"192.0.2.2", "", "192.0.2.2"},
        {"127.1", "", "127.1"},
        {"2001:db8::2", "", "[2001:db8::2]"},
        {"::ffff:192.0.2.2", "", "[::ffff:192.0.2.2]"},
        {"fe80::2%eth0", "", "[fe80::2]"},
    };
    for (const auto& row : cases) {
        CAPTURE(row.host);
        const auto extensions = extensions_for(row.host);
        const auto found = extensions.find("\0\0"s);
        CHECK((found == extensions.end() ? "" : found->second.substr(5)) == row.server_name);
        CHECK(make_payload("http", 0, row.host).starts_with("GET / HTTP/1.1\r\nHost: " + row.http_host + "\r\n"));
    }
    CHECK(make_payload("http", 0, "localhost").ends_with("\r\nAccept: */*\r\n\r\n"));
}

TEST_CASE("payload: other kinds") {
    const auto ssh = make_payload("ssh", 0, "192.0.2.2");
    CHECK(ssh.starts_with("SSH-2.0-"));
    CHECK(ssh.find('-', 8) == std::string::npos);  // RFC 4253 allows no other '-' there
    CHECK(ssh.ends_with("\r\n"));
    CHECK(make_payload("smtp", 0, "192.0.2.2") == "EHLO localhost\r\n");
    CHECK(make_payload("hex:00", 0, "192.0.2.2") == "\0"s);
    CHECK(make_payload("hex:fF0d0A", 0, "192.0.2.2") == "\xff\r\n");
    CHECK(make_payload(PayloadFile(1).kind(), 0, "192.0.2.2") == "\0"s);
    CHECK(make_payload(PayloadFile(max_payload).kind(), 0, "192.0.2.2").size() == max_payload);
}

TEST_CASE("payload: a wrong payload is quoted, and the error says what is allowed") {
    const std::string allowed =
        " is not a payload: write tls, http, ssh, smtp, hex:0d0a (an even number of hex digits) or @FILE";
    for (const std::string kind : {"TLS", "tls ", "hex", "hex:", "hex:0", "hex:0g", "hex:+1", "hex: 1", "hex:0d 0a"})
        CHECK(refused_payload(kind) == quote(kind) + allowed);
    CHECK(refused_payload("\x1b[2J") == R"('\x1b[2J')" + allowed);
    CHECK(refused_payload("@/no/such") == "opening the payload file '/no/such': No such file or directory");
    for (const std::string path : {"/", "/dev/null", "/dev/zero"})
        CHECK(refused_payload("@" + path) ==
              "'" + path + "' is not a payload: it must be a file of 1 to 16777216 bytes");
    CHECK(refused_payload(PayloadFile(max_payload + 1).kind()).ends_with("it must be a file of 1 to 16777216 bytes"));
}

}  // namespace echo_server
