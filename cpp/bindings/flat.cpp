// SPDX-License-Identifier: Apache-2.0
// Exact search, and the checks of values that Python leaves to native code.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "annx/base/types.h"
#include "annx/index/flat.h"
#include "annx/kernels/dispatch.h"
#include "annx/storage/check.h"
#include "annx/storage/panels.h"
#include "common.h"
#include "persist.h"
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

std::span<const std::int64_t> span_of(const Array<std::int64_t>& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
}

// Stored rows of the index's width.
RowsView stored(const py::array& array, DType dtype, std::size_t dim,
                const char* name) {
  const RowsView view = rows(array, name);
  if (view.stride != row_bytes(dtype, dim)) {
    throw InvalidArgument(std::string(name) + " has rows of another width");
  }
  return view;
}

template <class T>
Array<T> empty(std::size_t rows, std::size_t cols) {
  return Array<T>({static_cast<py::ssize_t>(rows), static_cast<py::ssize_t>(cols)});
}

// A vector handed to NumPy without a copy.
template <class T>
py::array_t<T> give(std::vector<T>&& values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  auto* raw = owned.get();
  const py::capsule keep(owned.release(),
                         [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(raw->size()), raw->data(), keep);
}

py::tuple ragged(search::Ragged&& found) {
  return py::make_tuple(give(std::move(found.offsets)), give(std::move(found.ids)),
                        give(std::move(found.distances)));
}

py::tuple flat_search(const FlatIndex& self, const py::array& queries, std::size_t k,
                      const SlotSet* filter, std::size_t threads,
                      const py::object& progress) {
  const RowsView view =
      stored(queries, search::query_dtype(self.dtype()), self.dim(), "queries");
  auto ids = empty<std::int64_t>(view.rows, k);
  auto distances = empty<float>(view.rows, k);
  std::int64_t* ids_out = ids.mutable_data();
  float* distances_out = distances.mutable_data();
  PyMonitor monitor(progress);
  {
    const py::gil_scoped_release released;
    self.search(view, k, filter, threads, &monitor, ids_out, distances_out);
  }
  return py::make_tuple(ids, distances);
}

py::tuple flat_search_radius(const FlatIndex& self, const py::array& queries,
                             double radius, const SlotSet* filter, std::size_t threads,
                             const py::object& progress) {
  const RowsView view =
      stored(queries, search::query_dtype(self.dtype()), self.dim(), "queries");
  PyMonitor monitor(progress);
  search::Ragged found;
  {
    const py::gil_scoped_release released;
    found = self.search_radius(view, radius, filter, threads, &monitor);
  }
  return ragged(std::move(found));
}

py::array_t<std::int64_t> flat_count_radius(const FlatIndex& self,
                                            const py::array& queries, double radius,
                                            const SlotSet* filter, std::size_t threads,
                                            const py::object& progress) {
  const RowsView view =
      stored(queries, search::query_dtype(self.dtype()), self.dim(), "queries");
  PyMonitor monitor(progress);
  std::vector<std::int64_t> offsets;
  {
    const py::gil_scoped_release released;
    offsets = self.count_radius(view, radius, filter, threads, &monitor);
  }
  return give(std::move(offsets));
}

struct SingleFlat {
  using Index = FlatIndex;
  static DType dtype(const FlatIndex& index) { return index.dtype(); }
  static Metric metric(const FlatIndex& index) { return index.metric(); }
  static std::size_t dim(const FlatIndex& index) { return index.dim(); }
  static void run(const FlatIndex& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, nullptr, 1, monitor, ids, distances);
  }
};

// Rows that are searched where they lie, without an index.
struct Borrowed {
  search::RowSet set;
  std::vector<float> norms;

  Borrowed(RowsView rows, std::size_t dim, std::string_view metric,
           std::string_view dtype) {
    set.metric = parse_metric(metric);
    set.dtype = parse_dtype(dtype);
    set.dim = dim;
    set.rows = rows.data;
    set.stride = rows.stride;
    set.count = rows.rows;
    if (set.metric == Metric::kCosine) {
      norms.resize(rows.rows);
      search::row_norms(set.dtype, rows, dim, norms.data());
      set.norms = norms.data();
    }
  }
};

py::tuple exact_search(const py::array& queries, const py::array& vectors,
                       std::size_t dim, std::size_t k, std::string_view metric,
                       std::string_view dtype, std::size_t threads,
                       const py::object& progress) {
  const DType type = parse_dtype(dtype);
  const RowsView q = stored(queries, search::query_dtype(type), dim, "queries");
  const RowsView x = stored(vectors, type, dim, "vectors");
  auto ids = empty<std::int64_t>(q.rows, k);
  auto distances = empty<float>(q.rows, k);
  std::int64_t* ids_out = ids.mutable_data();
  float* distances_out = distances.mutable_data();
  PyMonitor monitor(progress);
  {
    const py::gil_scoped_release released;
    const Borrowed borrowed(x, dim, metric, dtype);
    search::search_topk(borrowed.set, q, k, threads, &monitor, ids_out, distances_out);
  }
  return py::make_tuple(ids, distances);
}

Array<float> pairwise_distances(const py::array& a, const py::array& b, std::size_t dim,
                                std::string_view metric, std::string_view dtype,
                                std::size_t threads, const py::object& progress) {
  const DType type = parse_dtype(dtype);
  const RowsView q = stored(a, search::query_dtype(type), dim, "a");
  const RowsView x = stored(b, type, dim, "b");
  auto distances = empty<float>(q.rows, x.rows);
  float* out = distances.mutable_data();
  PyMonitor monitor(progress);
  {
    const py::gil_scoped_release released;
    const Borrowed borrowed(x, dim, metric, dtype);
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
                 return FlatIndex(dim, parse_metric(metric), parse_dtype(dtype));
               }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"))
      .def_property_readonly("dim", &FlatIndex::dim)
      .def_property_readonly("metric",
                             [](const FlatIndex& i) { return name_of(i.metric()); })
      .def_property_readonly("dtype",
                             [](const FlatIndex& i) { return name_of(i.dtype()); })
      .def_property_readonly("version", &FlatIndex::version)
      .def("__len__", &FlatIndex::size, py::call_guard<py::gil_scoped_release>())
      .def("contains", &FlatIndex::contains, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "add",
          [](FlatIndex& self, const py::array& vectors,
             const std::optional<Array<std::int64_t>>& ids) {
            const RowsView view = stored(vectors, self.dtype(), self.dim(), "vectors");
            Array<std::int64_t> out(static_cast<py::ssize_t>(view.rows));
            std::int64_t* to = out.mutable_data();
            const std::int64_t* given = ids ? ids->data() : nullptr;
            {
              const py::gil_scoped_release released;
              self.add(view, given, to);
            }
            return out;
          },
          py::arg("vectors"), py::arg("ids"))
      .def(
          "upsert",
          [](FlatIndex& self, const py::array& vectors,
             const Array<std::int64_t>& ids) {
            const RowsView view = stored(vectors, self.dtype(), self.dim(), "vectors");
            const std::int64_t* given = ids.data();
            const py::gil_scoped_release released;
            self.upsert(view, given);
          },
          py::arg("vectors"), py::arg("ids").noconvert())
      .def(
          "remove",
          [](FlatIndex& self, const Array<std::int64_t>& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release released;
            self.remove(span);
          },
          py::arg("ids").noconvert())
      .def(
          "get",
          [](const FlatIndex& self, const Array<std::int64_t>& ids) {
            const auto span = span_of(ids);
            auto out =
                empty<std::uint8_t>(span.size(), row_bytes(self.dtype(), self.dim()));
            auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
            {
              const py::gil_scoped_release released;
              self.get(span, to);
            }
            return out;
          },
          py::arg("ids").noconvert(), "Rows as bytes.")
      .def("ids",
           [](const FlatIndex& self) {
             std::vector<std::int64_t> out;
             {
               const py::gil_scoped_release released;
               out.resize(self.size());
               out.resize(self.ids(out.data(), out.size()));
             }
             return give(std::move(out));
           })
      .def(
          "slot_set",
          [](const FlatIndex& self, const Array<std::int64_t>& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release released;
            return self.slot_set(span);
          },
          py::arg("ids").noconvert())
      .def("search", &flat_search, py::arg("queries"), py::arg("k"),
           py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("search_radius", &flat_search_radius, py::arg("queries"), py::arg("radius"),
           py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("count_radius", &flat_count_radius, py::arg("queries"), py::arg("radius"),
           py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("memory", [](const FlatIndex& self) {
        FlatIndex::Memory memory;
        {
          const py::gil_scoped_release released;
          memory = self.memory();
        }
        py::dict result;
        result["rows"] = memory.rows;
        result["norms"] = memory.norms;
        result["ids"] = memory.ids;
        return result;
      });
  bind_single<SingleFlat>(flat);
  bind_persistence(flat, "flat");

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
