// SPDX-License-Identifier: BSD-2-Clause
#include "service/ports.h"

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace echo_server {

namespace {

PortSet ports_of(const std::string& list) {
    PortList ports;
    ports.add(list);
    return ports.ports();
}

std::string refusal_of(const std::string& list, const EphemeralPorts& local) {
    try {
        check_ephemeral_ports(ports_of(list), local);
        return "opens";
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

// The text in quotes in the refusal of `list`, or "opens".
std::string proposal(const std::string& list, const EphemeralPorts& local) {
    auto refusal = refusal_of(list, local);
    if (refusal == "opens") return refusal;
    const auto start = refusal.find('\'', refusal.find("leave some out")) + 1;
    return refusal.substr(start, refusal.find('\'', start) - start);
}

}  // namespace

TEST_CASE("ephemeral ports: the sysctls are read as the kernel writes them") {
    const auto local = parse_ephemeral_ports("32768\t60999", "");
    CHECK(to_string(local.range) == "32768-60999");
    CHECK(local.usable.to_string() == "32768-60999");
    CHECK(local.unreadable.empty());
    const auto reserved = parse_ephemeral_ports("100\t200", "8,99-101,150,199-300");
    CHECK(to_string(reserved.range) == "100-200");
    CHECK(reserved.usable.to_string() == "102-149,151-198");
    CHECK(parse_ephemeral_ports("1\t65535", "0,65535").usable.to_string() == "1-65534");
    CHECK(parse_ephemeral_ports("1\t65535", "1-65535").usable.empty());
    for (const std::string text : {"", "7-8", "1\t65536", "one\ttwo"}) {
        CAPTURE(text);
        CHECK(parse_ephemeral_ports(text, "").usable.to_string() == "32768-60999");
    }
}

TEST_CASE(
    "ephemeral ports: a list must leave enough of them closed, and the exclusion that is proposed does just that") {
    struct Case {
        std::string range;
        std::string reserved;
        std::string list;
        std::string proposal;
    };
    const std::string usual = "32768\t60999";
    const std::vector<Case> cases = {
        {usual, "", "7", "opens"},
        {usual, "", "1-32767,61000-65535", "opens"},
        {usual, "", "1-65535", "!59976-60999"},
        {usual, "", "1-65535,!22", "!59976-60999"},
        {usual, "", "32768-60999", "!59976-60999"},
        // Just enough closed ports, and one port less.
        {usual, "", "1-65535,!59976-60999", "opens"},
        {usual, "", "1-65535,!40000-41023", "opens"},
        {usual, "", "1-65535,!59977-60999", "!59976"},
        {usual, "", "1-65535,!40000-41022", "!60999"},
        // Ports that are closed already count, at any place; ports in the way make the exclusion longer.
        {usual, "", "1-60000", "!59976-60000"},
        {usual, "", "1-65535,!40000-40499", "!60476-60999"},
        {usual, "", "1-65535,!60990-60999", "!59976-60989"},
        {usual, "", "1-65535,!60900,!60998", "!59976-60999"},
        {usual, "", "1-65535,!32000-33000", "!60209-60999"},
        // Reserved ports are no help to connect(), closed or open.
        {usual, "60000-60099", "1-65535", "!59876-60999"},
        {usual, "60000-60099", "1-65535,!60000-60099", "!59876-60999"},
        {usual, "60900-60999", "1-65535", "!59876-60899"},
        {usual, "8080", "1-65535", "!59976-60999"},
        // A range at the end of all ports, and all ports.
        {"64000\t65535", "", "1-65535", "!64512-65535"},
        {"1\t65535", "", "1-65535", "!64512-65535"},
        {"1\t65535", "", "1-64511", "opens"},
        // In a smaller range, half of the ports is enough.
        {"40000\t41023", "", "1-65535", "!40000-41023"},
        {"40000\t41022", "", "1-65535", "!40511-41022"},
        {"40000\t40031", "", "1-65535,!22", "!40016-40031"},
        {"40000\t40031", "", "1-65535,!40016-40031", "opens"},
        {"40000\t40030", "", "1-65535", "!40015-40030"},
        {"40000\t40031", "40000-40029", "1-65535", "!40031"},
        {"40000\t40000", "", "1-65535", "!40000"},
        {"40000\t40000", "", "1-39999", "opens"},
        {"40000\t40031", "1-65535", "1-65535", "opens"},  // the host has no ports, for any list
    };
    for (const auto& row : cases) {
        CAPTURE(row.range);
        CAPTURE(row.reserved);
        CAPTURE(row.list);
        const auto local = parse_ephemeral_ports(row.range, row.reserved);
        const auto proposed = proposal(row.list, local);
        CHECK(proposed == row.proposal);
        if (proposed != "opens") CHECK(proposal(row.list + "," + proposed, local) == "opens");
    }
}

TEST_CASE("ephemeral ports: a refusal says why, what it counted, and both ways out") {
    auto local = parse_ephemeral_ports("32768\t60999", "");
    CHECK(refusal_of("1-60000", local) ==
          "too few of ports 32768-60999 stay closed: the host takes the local ports of its own connections from these "
          "(net.ipv4.ip_local_port_range), and can connect nowhere while clients hold a connection on each; it needs "
          "1024 that nobody can take, and the list leaves it 999: leave some out ('!59976-60000'), or pass "
          "--allow-ephemeral in a network namespace of its own");
    local.unreadable = "Permission denied";
    CHECK(refusal_of("1-60000", local)
              .find("from these (the kernel's default, as net.ipv4.ip_local_port_range can't be read: Permission "
                    "denied), and") != std::string::npos);
}

}  // namespace echo_server
