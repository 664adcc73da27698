// SPDX-License-Identifier: BSD-2-Clause
#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string_view>

#include "base/os.h"
#include "base/text.h"
#include "probe/probe.h"

namespace echo_server {

namespace {

// Of a block's number, the low 8 bits are added, the next 7 make an odd factor, and the highest swaps neighbours. So
// all 65,536 blocks of the largest payload differ. The first byte is 0xd5: no protocol begins with it.
std::string pattern(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) {
        const auto block = (i / 256 * 40503 + 0x54d5) & 0xffffU;
        const auto factor = ((block >> 7U) & 0xfeU) | 1U;
        bytes[i] = static_cast<char>((((i ^ (block >> 15U)) * factor) + block) & 0xffU);
    }
    return bytes;
}

// "" if `digits` are not pairs of hex digits.
std::string unhex(std::string_view digits) {
    std::string bytes;
    for (; digits.size() >= 2; digits.remove_prefix(2)) {
        std::uint8_t byte = 0;
        const auto* const end = std::next(digits.begin(), 2);
        if (std::from_chars(digits.begin(), end, byte, 16).ptr != end) return {};
        bytes += static_cast<char>(byte);
    }
    return digits.empty() ? bytes : "";
}

// The length of `bytes`, as a number of `width` bytes, then `bytes`.
std::string counted(unsigned width, const std::string& bytes) {
    std::string text;
    while (width-- > 0) text += static_cast<char>((bytes.size() >> (8 * width)) & 0xffU);
    return text + bytes;
}

// RFC 8446, 4.1.2, and what a TLS 1.2 server needs. `name` is "" for an address (RFC 6066, 3).
std::string client_hello(const std::string& name) {
    const auto random = pattern(96);  // any 32 bytes are a key share of x25519
    const auto ciphers = unhex("130113021303c02bc02fc02cc030cca9cca8c013c014009c009d002f0035");
    // extended_master_secret, renegotiation_info, supported_groups, ec_point_formats, ALPN (h2, http/1.1),
    // signature_algorithms, psk_key_exchange_modes, supported_versions, and the beginning of key_share
    auto extensions = unhex(
        "00170000ff01000100000a00080006001d00170018000b000201000010000e000c02683208687474702f312e31000d0012001004"
        "030804040105030805050108060601002d00020101002b00050403040303003300260024001d0020");
    extensions += random.substr(64);
    if (!name.empty()) extensions += unhex("0000") + counted(2, counted(2, '\0' + counted(2, name)));
    const auto hello = unhex("0303") + random.substr(0, 32) + counted(1, random.substr(32, 32)) + counted(2, ciphers) +
                       unhex("0100") + counted(2, extensions);
    return unhex("160301") + counted(2, unhex("01") + counted(3, hello));
}

std::string contents_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(fmt::format("opening the payload file {}", quote(path)));
    std::string bytes(max_payload + 1, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    bytes.resize(static_cast<std::size_t>(file.gcount()));
    if (bytes.empty() || bytes.size() > max_payload)
        throw std::runtime_error(
            fmt::format("{} is not a payload: it must be a file of 1 to {} bytes", quote(path), max_payload));
    return bytes;
}

}  // namespace

std::string make_payload(const std::string& kind, std::size_t size, const std::string& host) {
    auto name = host.substr(0, host.find('%'));  // without a zone
    if (name.ends_with('.')) name.pop_back();
    const bool v6 = name.find(':') != std::string::npos;
    in_addr v4{};
    const bool address = v6 || ::inet_aton(name.c_str(), &v4) != 0;
    if (kind.empty()) return pattern(size);
    if (kind == "tls") return client_hello(address ? "" : name);
    if (kind == "http")
        return fmt::format("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: echo-server/{}\r\nAccept: */*\r\n\r\n",
                           v6 ? fmt::format("[{}]", name) : name, ECHO_SERVER_VERSION);
    if (kind == "ssh") return fmt::format("SSH-2.0-EchoServer_{}\r\n", ECHO_SERVER_VERSION);
    if (kind == "smtp") return "EHLO localhost\r\n";
    if (kind.starts_with('@')) return contents_of(kind.substr(1));
    const auto bytes = kind.starts_with("hex:") ? unhex(std::string_view(kind).substr(4)) : "";
    if (!bytes.empty()) return bytes;
    throw std::runtime_error(
        fmt::format("{} is not a payload: write tls, http, ssh, smtp, hex:0d0a (an even number of hex digits) or @FILE",
                    quote(kind)));
}

}  // namespace echo_server
