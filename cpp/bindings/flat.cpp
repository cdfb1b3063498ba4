// SPDX-License-Identifier: Apache-2.0
// Exact search, and the checks of values that Python leaves to native code.
#include "annx/base/types.h"
#include "annx/storage/check.h"
#include "common.h"

namespace annx::bindings {

void bind_flat(py::module_& m) {
  m.def(
      "check_rows",
      [](const py::array& array, std::string_view dtype, std::size_t dim,
         std::string_view name) {
        const DType type = parse_dtype(dtype);
        const RowsView view = rows(array, "rows");
        if (view.stride != row_bytes(type, dim)) {
          throw InvalidArgument(std::string(name) + " has rows of another width");
        }
        const py::gil_scoped_release released;
        storage::check_rows(type, view, dim, name);
      },
      py::arg("rows"), py::arg("dtype"), py::arg("dim"), py::arg("name"),
      "Raise ValueError at NaN, infinity, a squared norm beyond float32 or stray "
      "bits.");
}

}  // namespace annx::bindings
