// SPDX-License-Identifier: BSD-2-Clause
// Addresses on the command line, prefixes (--address) and endpoints (--listen): an accepted text reads the same when it
// is written out.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "expect.h"
#include "net/address.h"

namespace echo_server {

namespace {

template <typename Parsed>
std::optional<Parsed> read(Parsed (*parse)(const std::string&), const std::string& text) {
    try {
        return parse(text);
    } catch (const std::runtime_error&) {
        return {};
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    if (const auto prefix = read(parse_address_prefix, text)) {
        expect(parse_address_prefix(to_string(*prefix)) == *prefix);
        expect(prefix->contains(prefix->address));
    }
    // IPv4 addresses within IPv6 are written as IPv4.
    if (const auto endpoint = read(parse_endpoint, text))
        expect(to_string(parse_endpoint(to_string(*endpoint))) == to_string(*endpoint));
    return 0;
}

}  // namespace echo_server
