// SPDX-License-Identifier: BSD-2-Clause
#include "net/netlink.h"

#include <sys/socket.h>

#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/fd.h"

namespace echo_server {
namespace {

// Returns false at the end of the dump.
bool receive_some(const Fd& netlink, std::vector<char>& buffer, const std::function<void(const nlmsghdr*)>& visit) {
    const auto size = ::recv(netlink.get(), buffer.data(), buffer.size(), 0);
    if (size < 0 && errno == EINTR) return true;
    if (size < 0) fail("netlink");
    auto left = static_cast<unsigned>(size);
    for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
         header = NLMSG_NEXT(header, left)) {
        if (header->nlmsg_type == NLMSG_DONE) {
            // The last message says whether the dump is complete.
            const auto error = header->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) ? read_as<int>(NLMSG_DATA(header)) : 0;
            if (error < 0) fail("netlink", -error);
            return false;
        }
        if (header->nlmsg_type == NLMSG_ERROR)
            fail("netlink", -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error);
        visit(header);
    }
    return true;
}

}  // namespace

void netlink_dump(int protocol, const nlmsghdr& request, const std::function<void(const nlmsghdr*)>& visit) {
    const Fd netlink(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, protocol));
    if (!netlink || ::send(netlink.get(), &request, request.nlmsg_len, 0) < 0) fail("netlink");
    // The kernel's largest piece; on the heap, because a thread's stack may be small.
    std::vector<char> buffer(32768);
    while (receive_some(netlink, buffer, visit)) continue;
}

}  // namespace echo_server
