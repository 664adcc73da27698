// SPDX-License-Identifier: BSD-2-Clause
#include "support/nmap.h"

#include <cstdint>
#include <regex>

#include "net/port_set.h"

namespace echo_server {

std::string nmap(const Netns& from, const Command& arguments) {
    Command command{"nmap", "-n", "-Pn"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    return run_ok(from, command);
}

std::string ports_in(const std::string& output, const std::string& pattern) {
    PortSet ports;
    const std::regex expression(pattern);
    for (std::sregex_iterator match(output.begin(), output.end(), expression), end; match != end; ++match)
        ports.insert(static_cast<std::uint16_t>(std::stoi((*match)[1])));
    return ports.to_string();
}

}  // namespace echo_server
