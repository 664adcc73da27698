// SPDX-License-Identifier: BSD-2-Clause
#include "net/routes.h"

#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <sys/socket.h>

#include <asio/ip/address_v4.hpp>
#include <asio/ip/address_v6.hpp>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

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

template <typename Address>
Address address_in(std::string_view data) {
    typename Address::bytes_type bytes{};
    data.copy(reinterpret_cast<char*>(bytes.data()), bytes.size());
    return Address(bytes);
}

// A string ends with 0, or with its attribute.
std::string text_of(std::string_view data) { return std::string(data.substr(0, data.find('\0'))); }

template <typename Body>
struct RoutesRequest {
    nlmsghdr header;
    Body body;
};

// Calls `visit` with each message of the answer. `type` is RTM_GETLINK, say.
template <typename Body>
void dump(__u16 type, const Body& body, const std::function<void(const nlmsghdr*)>& visit) {
    RoutesRequest<Body> request{.header = {}, .body = body};
    request.header.nlmsg_len = sizeof(request);
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    netlink_dump(NETLINK_ROUTE, request.header, visit);
}

// The destination of a message RTM_NEWROUTE, if its route is of type local. The route to a subnet's broadcast address
// is of another type.
std::optional<AddressPrefix> local_destination_in(const nlmsghdr* message) {
    constexpr std::size_t size_before = NLMSG_LENGTH(sizeof(rtmsg));
    if (message->nlmsg_type != RTM_NEWROUTE || message->nlmsg_len < size_before) return {};
    const auto route = read_as<rtmsg>(NLMSG_DATA(message));
    if (route.rtm_type != RTN_LOCAL) return {};
    const auto* first = RTM_RTA(static_cast<const rtmsg*>(NLMSG_DATA(message)));
    const auto bytes = find(first, message->nlmsg_len - size_before, RTA_DST);  // none for a default route
    if (route.rtm_family == AF_INET6) return AddressPrefix{address_in<asio::ip::address_v6>(bytes), route.rtm_dst_len};
    return AddressPrefix{address_in<asio::ip::address_v4>(bytes), route.rtm_dst_len};
}

bool overlap(const AddressPrefix& a, const AddressPrefix& b) { return a.contains(b.address) || b.contains(a.address); }

}  // namespace

std::vector<AddressPrefix> without_local_address(std::vector<AddressPrefix> prefixes) {
    if (prefixes.empty()) return {};
    try {
        for (const int family : {AF_INET, AF_INET6}) {
            rtmsg wanted{};
            wanted.rtm_family = static_cast<unsigned char>(family);
            dump(RTM_GETROUTE, wanted, [&](const nlmsghdr* message) {
                const auto local = local_destination_in(message);
                if (local) std::erase_if(prefixes, [&](const auto& prefix) { return overlap(*local, prefix); });
            });
        }
    } catch (const std::system_error&) {
        return {};  // a missing warning is no reason to fail
    }
    return prefixes;
}

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
    std::string name;
    try {
        dump(RTM_GETLINK, ifinfomsg{}, [&](const nlmsghdr* message) {
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
