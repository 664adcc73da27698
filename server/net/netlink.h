// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <linux/netlink.h>

#include <cstring>
#include <functional>

namespace echo_server {

/// Sends `request`, a message with NLM_F_DUMP, and calls `visit` with each message of the answer (netlink(7)).
/// `protocol` is NETLINK_ROUTE, for example. Asks in the network namespace of the calling thread. Throws
/// std::system_error.
void netlink_dump(int protocol, const nlmsghdr& request, const std::function<void(const nlmsghdr*)>& visit);

/// Copies a value out of a buffer of messages, where it may not be aligned for its type.
template <typename T>
T read_as(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

}  // namespace echo_server
