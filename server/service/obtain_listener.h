// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include <optional>

#include "base/descriptor_store.h"
#include "base/fd.h"
#include "options.h"
#include "service/takeover.h"

namespace echo_server {

/// The socket of the socket unit (`passed`), of the running server (`takeover`), of the process before this one
/// (`store`), or a new one: the first of these that there is. Throws std::runtime_error if it can't be the listener, or
/// is not bound where --listen says; of the store, if that is so, a new one is opened instead.
Fd obtain_listener(const Options& options, std::optional<Fd> passed, std::optional<Takeover>& takeover,
                   DescriptorStore& store);

}  // namespace echo_server
