// SPDX-License-Identifier: Apache-2.0
// The kernels by name, for tests and micro-benchmarks.
#include <pybind11/stl.h>

#include "annx/kernels/dispatch.h"
#include "common.h"

namespace annx::bindings {

void bind_kernels(py::module_& m) {
  m.def(
      "isa", [] { return std::string(kernels::active().isa); },
      "Name of the instruction set in use.");
  m.def(
      "isas",
      [] {
        py::dict result;
        for (const auto& info : kernels::compiled_isas()) {
          result[py::str(info.name)] = info.supported;
        }
        return result;
      },
      "Compiled instruction sets, worst first, and whether this processor has them.");
}

}  // namespace annx::bindings
