// SPDX-License-Identifier: BSD-2-Clause
#include "base/error.h"

#include <fmt/format.h>

#include <cstring>

namespace echo_server {

SystemError::SystemError(std::string_view what, int error, std::string_view hint)
    : std::system_error(error, std::generic_category()),
      text_(fmt::format("{}: {}{}{}", what, error_text(error), hint.empty() ? "" : "; ", hint)) {}

void fail(std::string_view what, int error, std::string_view hint) { throw SystemError(what, error, hint); }

const char* error_text(int error) noexcept {
    const char* text = ::strerrordesc_np(error);
    return text != nullptr ? text : "unknown error";
}

}  // namespace echo_server
