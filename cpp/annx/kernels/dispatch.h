// SPDX-License-Identifier: Apache-2.0
// Which kernel table to use: the best that this processor and its operating system
// support, or the one that the environment variable ANNX_ISA names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "annx/kernels/table.h"

namespace annx::kernels {

// The table in use, chosen once, at first use. Throws InvalidArgument if ANNX_ISA names
// a set that is not compiled in or that this processor lacks.
const KernelTable& active();

// Every compiled table, worst first, and whether this processor can run it.
struct IsaInfo {
  std::string name;
  bool supported;
};
std::vector<IsaInfo> compiled_isas();

// A table by name, for tests; throws as active() does.
const KernelTable& table_for(std::string_view name);

}  // namespace annx::kernels
