// SPDX-License-Identifier: BSD-2-Clause
#include "net/sockets.h"

#include <doctest/doctest.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cstring>
#include <string>
#include <string_view>

namespace echo_server {

namespace {

std::string attribute(unsigned short type, std::string_view data) {
    rtattr header{.rta_len = static_cast<unsigned short>(RTA_LENGTH(data.size())), .rta_type = type};
    std::string whole(RTA_SPACE(data.size()), '\0');
    std::memcpy(whole.data(), &header, sizeof(header));
    std::memcpy(RTA_DATA(whole.data()), data.data(), data.size());
    return whole;
}

/// The result of vrf_in() for a message of this type with these attributes.
std::string found_in(int type, const std::string& attributes) {
    nlmsghdr header{};
    header.nlmsg_len = static_cast<__u32>(NLMSG_LENGTH(sizeof(ifinfomsg)) + attributes.size());
    header.nlmsg_type = static_cast<__u16>(type);
    std::string message(NLMSG_LENGTH(sizeof(ifinfomsg)), '\0');
    std::memcpy(message.data(), &header, sizeof(header));
    message += attributes;
    return vrf_in(reinterpret_cast<const nlmsghdr*>(message.data()));
}

}  // namespace

TEST_CASE("vrf: of all interfaces only a VRF is found") {
    using namespace std::string_view_literals;
    const auto name = attribute(IFLA_IFNAME, "blue\0"sv);
    const auto kind = [](std::string_view text) { return attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, text)); };
    CHECK(found_in(RTM_NEWLINK, name + kind("vrf\0"sv)) == "blue");
    CHECK(found_in(RTM_NEWLINK, name + kind("vrf"sv)) == "blue");
    CHECK(found_in(RTM_NEWLINK, kind("vrf\0"sv) + attribute(IFLA_MTU, "1234"sv) + name) == "blue");
    CHECK(found_in(RTM_NEWLINK, name + kind("veth\0"sv)).empty());
    CHECK(found_in(RTM_NEWLINK, name + kind(""sv)).empty());
    CHECK(found_in(RTM_NEWLINK, name + attribute(IFLA_LINKINFO, ""sv)).empty());
    CHECK(found_in(RTM_NEWLINK, name).empty());
    CHECK(found_in(RTM_NEWLINK, "").empty());
    CHECK(found_in(RTM_DELLINK, name + kind("vrf\0"sv)).empty());
}

}  // namespace echo_server
