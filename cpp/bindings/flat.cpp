// SPDX-License-Identifier: Apache-2.0
// Exact search, and the checks of values that Python leaves to native code.
#include <algorithm>
#include <limits>
#include <vector>

#include "annx/base/types.h"
#include "annx/index/flat.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"
#include "annx/storage/panels.h"
#include "common.h"
#include "rows.h"
#include "single.h"

namespace annx::bindings {
namespace {

// The register tiles of one instruction set by themselves, for tests.
Array<float> tile_products(const Array<float>& queries, const Array<float>& rows,
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
  return sums;
}

using index::FlatIndex;
using storage::SlotSet;

struct SingleFlat {
  using Index = FlatIndex;
  static void run(const FlatIndex& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, nullptr, 1, monitor, ids, distances);
  }
};

// Python has checked the rest.
void check_ball(const search::RowSet& set, RowsView queries, const char* queries_name,
                RowsView vectors, const char* vectors_name) {
  if (set.metric != Metric::kPoincare) return;
  storage::check_rows(set.metric, search::query_dtype(set.dtype), queries, set.dim,
                      queries_name);
  storage::check_rows(set.metric, set.dtype, vectors, set.dim, vectors_name);
}

py::tuple exact_search(const py::array& queries, const py::array& vectors,
                       std::size_t dim, std::size_t k, std::string_view metric,
                       std::string_view dtype, std::size_t threads,
                       const py::object& progress) {
  const DType type = parse_dtype(dtype);
  const RowsView q = rows_of(queries, search::query_dtype(type), dim, "queries");
  const RowsView x = rows_of(vectors, type, dim, "vectors");
  return searched(
      q.rows, k, progress, [&](std::int64_t* ids, float* distances, Monitor* monitor) {
        const Borrowed borrowed(x, dim, metric, dtype);
        check_ball(borrowed.set, q, "queries", x, "vectors");
        search::search_topk(borrowed.set, q, k, threads, monitor, ids, distances);
      });
}

Array<float> pairwise_distances(const py::array& a, const py::array& b, std::size_t dim,
                                std::string_view metric, std::string_view dtype,
                                std::size_t threads, const py::object& progress) {
  const DType type = parse_dtype(dtype);
  const RowsView q = rows_of(a, search::query_dtype(type), dim, "a");
  const RowsView x = rows_of(b, type, dim, "b");
  Array<float> distances({q.rows, x.rows});
  float* out = distances.mutable_data();
  PyMonitor monitor(progress);
  {
    const py::gil_scoped_release released;
    const Borrowed borrowed(x, dim, metric, dtype);
    check_ball(borrowed.set, q, "a", x, "b");
    search::all_pairs(borrowed.set, q, threads, &monitor, out);
  }
  return distances;
}

void bind_index(py::module_& m) {
  py::class_<SlotSet>(m, "SlotSet")
      .def_property_readonly("count", &SlotSet::count)
      .def_property_readonly("version", &SlotSet::version);

  py::class_<FlatIndex> flat(m, "FlatIndex");
  flat.def(py::init(
               [](std::size_t dim, std::string_view metric, std::string_view dtype) {
                 return FlatIndex(dim, parse_any_metric(metric), parse_dtype(dtype));
               }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"))
      .def(
          "search",
          [](const FlatIndex& self, const py::array& queries, std::size_t k,
             const SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = queries_of(self, queries);
            return searched(view.rows, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, k, filter, threads, monitor, ids,
                                          distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"))
      .def(
          "count_radius",
          [](const FlatIndex& self, const py::array& queries, double radius,
             const SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = queries_of(self, queries);
            PyMonitor monitor(std::move(progress));
            return give(unlocked([&] {
              return self.count_radius(view, radius, filter, threads, &monitor);
            }));
          },
          py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"))
      .def("memory", [](const FlatIndex& self) {
        const auto memory = unlocked([&] { return self.memory(); });
        return named(
            {{"rows", memory.rows}, {"norms", memory.norms}, {"ids", memory.ids}});
      });
  bind_single<SingleFlat>(flat);
  bind_held(flat, "flat");

  m.def("exact_search", &exact_search, py::arg("queries"), py::arg("vectors"),
        py::arg("dim"), py::arg("k"), py::arg("metric"), py::arg("dtype"),
        py::arg("threads"), py::arg("progress"));
  m.def("pairwise_distances", &pairwise_distances, py::arg("a"), py::arg("b"),
        py::arg("dim"), py::arg("metric"), py::arg("dtype"), py::arg("threads"),
        py::arg("progress"));
}

}  // namespace

void bind_flat(py::module_& m) {
  bind_index(m);
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
