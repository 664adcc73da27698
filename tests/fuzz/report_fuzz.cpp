// SPDX-License-Identifier: BSD-2-Clause
// The output of 'status --json', perhaps from another machine: any text is accepted or refused, the error can be shown
// on a terminal, and with an accepted text each port has a reading.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "base/text.h"
#include "expect.h"
#include "probe/report.h"

namespace echo_server {

namespace {

constexpr std::array verdicts = {Verdict::echoed,  Verdict::altered,     Verdict::cut,     Verdict::silent,
                                 Verdict::refused, Verdict::unreachable, Verdict::filtered};

std::optional<ServerSide> read(const std::string& document) {
    try {
        return parse_status(document);
    } catch (const std::runtime_error& error) {
        expect(printable(error.what()) == error.what());
        return {};
    }
}

bool is_nothing(const ServerFigures& figures) { return figures.attempts == 0 && figures.received == 0; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto side = read(std::string(reinterpret_cast<const char*>(data), size));
    if (!side) return 0;
    expect(side->by_port.size() == 65536);
    expect((side->open & (side->taken | side->hosts)).empty());
    expect(std::ranges::all_of(difference(*side, *side).by_port, is_nothing));
    for (const auto verdict : verdicts) {
        const PortResult result{.verdict = verdict, .tries = 1, .sent = size, .detail = {}};
        for (const auto port : std::to_array<std::uint16_t>({7, 80, 65535}))
            expect(!reading_of(port, result, *side).empty());
    }
    return 0;
}

}  // namespace echo_server
