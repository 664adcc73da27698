// SPDX-License-Identifier: BSD-2-Clause
#include "net/vrf.h"

#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cstring>
#include <string_view>
#include <system_error>

#include "base/sysctl.h"
#include "net/netlink.h"

namespace echo_server {
namespace {

// The contents of the attribute `type`, among attributes of `size` bytes that begin at `first`.
std::string_view find(const rtattr* first, std::size_t size, unsigned short type) {
    auto left = static_cast<int>(size);
    for (const auto* one = first; RTA_OK(one, left); one = RTA_NEXT(one, left))
        if (one->rta_type == type) return {static_cast<const char*>(RTA_DATA(one)), RTA_PAYLOAD(one)};
    return {};
}

// A string ends with 0, or with its attribute.
std::string text_of(std::string_view data) { return std::string(data.substr(0, data.find('\0'))); }

struct LinksRequest {
    nlmsghdr header;
    ifinfomsg body;
};

}  // namespace

std::string vrf_in(const nlmsghdr* message) {
    constexpr std::size_t size_before = NLMSG_LENGTH(sizeof(ifinfomsg));
    if (message->nlmsg_type != RTM_NEWLINK || message->nlmsg_len < size_before) return {};
    const auto* first = IFLA_RTA(NLMSG_DATA(message));
    const auto size = message->nlmsg_len - size_before;
    const auto about = find(first, size, IFLA_LINKINFO);
    const auto kind = find(reinterpret_cast<const rtattr*>(about.data()), about.size(), IFLA_INFO_KIND);
    return text_of(kind) == "vrf" ? text_of(find(first, size, IFLA_IFNAME)) : "";
}

std::string explain_vrf() {
    if (read_sysctl("net/ipv4/tcp_l3mdev_accept") != "0") return {};
    LinksRequest request{};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = RTM_GETLINK;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    std::string name;
    try {
        netlink_dump(NETLINK_ROUTE, request.header, [&](const nlmsghdr* message) {
            if (name.empty()) name = vrf_in(message);
        });
    } catch (const std::system_error&) {
        return {};  // a missing warning is no reason to fail
    }
    if (name.empty()) return {};
    return fmt::format(
        "clients in the VRF {} will time out, as net.ipv4.tcp_l3mdev_accept is 0 and the kernel answers them by "
        "another routing table: set it ('sysctl -w net.ipv4.tcp_l3mdev_accept=1')",
        name);
}

}  // namespace echo_server
