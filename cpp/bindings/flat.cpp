// SPDX-License-Identifier: Apache-2.0
// Exact search, and the checks of values that Python leaves to native code.
#include <algorithm>
#include <limits>
#include <vector>

#include "annx/base/types.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"
#include "annx/storage/panels.h"
#include "common.h"

namespace annx::bindings {
namespace {

// The register tiles of one instruction set by themselves, for tests: all sums, and the
// nearest row of each query.
py::tuple tile_products(const Array<float>& queries, const Array<float>& rows,
                        const Array<float>& bias, std::string_view isa) {
  const kernels::TileKernels& tile = kernels::table_for(isa).tile;
  storage::Panels q(tile, storage::Panels::Side::kQueries);
  storage::Panels x(tile, storage::Panels::Side::kRows);
  q.pack(matrix(queries, "queries"));
  x.pack(matrix(rows, "rows"));
  const std::size_t dim = matrix(rows, "rows").cols;
  std::vector<float> start(x.padded(), std::numeric_limits<float>::infinity());
  std::copy_n(bias.data(), x.count(), start.begin());
  Array<float> sums({q.padded(), x.padded()});
  tile.block(q.data(), q.panels(), x.data(), x.panels(), dim, start.data(),
             sums.mutable_data(), x.padded());
  Array<float> best(static_cast<py::ssize_t>(q.padded()));
  Array<std::uint32_t> best_row(static_cast<py::ssize_t>(q.padded()));
  for (std::size_t p = 0; p < q.panels(); ++p) {
    tile.nearest(q.panel(p), x.data(), x.panels(), dim, start.data(),
                 best.mutable_data() + p * q.width(),
                 best_row.mutable_data() + p * q.width());
  }
  return py::make_tuple(sums, best, best_row);
}

}  // namespace

void bind_flat(py::module_& m) {
  m.def("tile_products", &tile_products, py::arg("queries").noconvert(),
        py::arg("rows").noconvert(), py::arg("bias").noconvert(), py::arg("isa"),
        "Sums bias + <q, x> by register tiles, padded, and the least of each query.");
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
