// SPDX-License-Identifier: BSD-2-Clause
#pragma once

#include "net/port_set.h"

namespace echo_server {

// The map echo_ports, by its descriptor: its keys are ports, and its values, of one byte, have no meaning. A function
// that fails throws std::runtime_error.

PortSet read_ports(int map);
void add_ports(int map, const PortSet& ports);
/// A port that is not in the map is no error.
void remove_ports(int map, const PortSet& ports);

}  // namespace echo_server
