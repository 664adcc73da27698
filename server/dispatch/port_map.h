// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "net/port_set.h"

namespace echo_server {

// The map echo_ports by its descriptor: a hash whose keys are ports, and whose values, of one byte, mean nothing. What
// fails throws std::runtime_error.

PortSet read_ports(int map);
void add_ports(int map, const PortSet& ports);
/// A port that is not there is no error.
void remove_ports(int map, const PortSet& ports);

}  // namespace echo_server
