// SPDX-License-Identifier: Apache-2.0
// annx._core.KDForestIndex and LSHIndex: indexes of rows that can go and change.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "annx/index/kd_forest.h"
#include "annx/index/lsh.h"
#include "common.h"
#include "persist.h"
#include "single.h"

namespace annx::bindings {
namespace {

using index::KDForestIndex;
using index::LSHIndex;
using storage::SlotSet;
using Ids = Array<std::int64_t>;

std::span<const std::int64_t> span_of(const Ids& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
}

template <class T>
py::array_t<T> copied(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple ragged(const search::Ragged& found) {
  return py::make_tuple(copied(found.offsets), copied(found.ids),
                        copied(found.distances));
}

RowsView as_wide(std::size_t bytes, const py::array& array, const char* name) {
  const RowsView view = rows(array, name);
  if (view.stride != bytes) {
    throw InvalidArgument(std::string(name) + " has rows of another width");
  }
  return view;
}

// What every index of rows that can go and change has; the index's own methods are
// bound beside it.
template <class Index>
void bind_rows(py::class_<Index>& bound) {
  bound.def_property_readonly("version", &Index::version)
      .def("__len__", &Index::size, py::call_guard<py::gil_scoped_release>())
      .def("contains", &Index::contains, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "add",
          [](Index& self, const py::array& vectors, const std::optional<Ids>& ids,
             std::size_t threads, py::object progress) {
            const RowsView view = as_wide(self.bytes_of_row(), vectors, "vectors");
            Ids out(static_cast<py::ssize_t>(view.rows));
            std::int64_t* to = out.mutable_data();
            const std::int64_t* given = ids ? ids->data() : nullptr;
            PyMonitor monitor(std::move(progress));
            {
              const py::gil_scoped_release released;
              self.add(view, given, to, resolve_threads(threads), &monitor);
            }
            return out;
          },
          py::arg("vectors"), py::arg("ids"), py::arg("threads"), py::arg("progress"))
      .def(
          "upsert",
          [](Index& self, const py::array& vectors, const Ids& ids) {
            const RowsView view = as_wide(self.bytes_of_row(), vectors, "vectors");
            const std::int64_t* given = ids.data();
            const py::gil_scoped_release released;
            self.upsert(view, given, resolve_threads(0), nullptr);
          },
          py::arg("vectors"), py::arg("ids").noconvert())
      .def(
          "remove",
          [](Index& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release released;
            self.remove(span);
          },
          py::arg("ids").noconvert())
      .def(
          "get",
          [](const Index& self, const Ids& ids) {
            const auto span = span_of(ids);
            Array<std::uint8_t> out({span.size(), self.bytes_of_row()});
            auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
            {
              const py::gil_scoped_release released;
              self.get(span, to);
            }
            return out;
          },
          py::arg("ids").noconvert(), "Rows as bytes.")
      .def("ids",
           [](const Index& self) {
             std::vector<std::int64_t> out;
             {
               const py::gil_scoped_release released;
               out.resize(self.size());
               out.resize(self.ids(out.data(), out.size()));
             }
             return copied(out);
           })
      .def(
          "slot_set",
          [](const Index& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release released;
            return self.slot_set(span);
          },
          py::arg("ids").noconvert());
}

// (ids, distances) of run(queries, ids, distances, monitor), without the GIL.
template <class Run>
py::tuple searched(RowsView queries, std::size_t k, py::object progress, Run&& run) {
  Array<std::int64_t> ids({queries.rows, k});
  Array<float> distances({queries.rows, k});
  std::int64_t* ids_out = ids.mutable_data();
  float* distances_out = distances.mutable_data();
  PyMonitor monitor(std::move(progress));
  {
    const py::gil_scoped_release released;
    run(ids_out, distances_out, &monitor);
  }
  return py::make_tuple(std::move(ids), std::move(distances));
}

// --- k-d trees -----------------------------------------------------------------------

struct SingleTree {
  using Index = KDForestIndex;
  static DType dtype(const Index&) { return DType::kFloat32; }
  static Metric metric(const Index& index) { return index.options().metric; }
  static std::size_t dim(const Index& index) { return index.options().dim; }
  static void run(const Index& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, wanted.ef, nullptr, 1, monitor, ids,
                 distances);
  }
};

void bind_kd_forest(py::module_& m) {
  py::class_<KDForestIndex> forest(m, "KDForestIndex");
  forest
      .def(py::init([](std::size_t dim, std::string_view metric, std::size_t n_trees,
                       std::uint64_t seed) {
             return KDForestIndex({.dim = dim,
                                   .metric = parse_metric(metric),
                                   .n_trees = n_trees,
                                   .seed = seed});
           }),
           py::arg("dim"), py::arg("metric"), py::arg("n_trees"), py::arg("seed"))
      .def_property_readonly("dim",
                             [](const KDForestIndex& i) { return i.options().dim; })
      .def_property_readonly(
          "metric", [](const KDForestIndex& i) { return name_of(i.options().metric); })
      .def_property_readonly(
          "dtype", [](const KDForestIndex&) { return name_of(DType::kFloat32); })
      .def_property_readonly("n_trees",
                             [](const KDForestIndex& i) { return i.options().n_trees; })
      .def(
          "search",
          [](const KDForestIndex& self, const py::array& queries, std::size_t k,
             std::size_t checks, const SlotSet* filter, std::size_t threads,
             py::object progress) {
            const RowsView view = as_wide(self.bytes_of_row(), queries, "queries");
            return searched(view, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, k, checks, filter, threads, monitor,
                                          ids, distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("checks"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def(
          "search_radius",
          [](const KDForestIndex& self, const py::array& queries, double radius,
             const SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = as_wide(self.bytes_of_row(), queries, "queries");
            PyMonitor monitor(std::move(progress));
            search::Ragged found;
            {
              const py::gil_scoped_release released;
              found = self.search_radius(view, radius, filter, threads, &monitor);
            }
            return ragged(found);
          },
          py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"))
      .def("stats", [](const KDForestIndex& self) {
        KDForestIndex::Stats stats;
        {
          const py::gil_scoped_release released;
          stats = self.stats();
        }
        py::dict result;
        result["vectors"] = stats.rows_bytes;
        result["trees"] = stats.trees_bytes;
        result["ids"] = stats.ids_bytes;
        result["parts"] = stats.parts;
        result["waiting"] = stats.waiting;
        result["removed"] = stats.removed;
        result["leaves"] = stats.leaves;
        return result;
      });
  bind_rows(forest);
  bind_single<SingleTree>(forest);
  bind_persistence(forest, "kd_forest");
}

// --- hash tables ---------------------------------------------------------------------

struct SingleHashed {
  using Index = LSHIndex;
  static DType dtype(const Index& index) { return index.dtype(); }
  static Metric metric(const Index& index) { return index.metric(); }
  static std::size_t dim(const Index& index) { return index.dim(); }
  static void run(const Index& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, wanted.ef, 0, nullptr, 1, monitor, ids,
                 distances);
  }
};

std::size_t query_bytes(const LSHIndex& index) {
  return row_bytes(search::query_dtype(index.dtype()), index.dim());
}

void bind_lsh(py::module_& m) {
  py::class_<LSHIndex> hashed(m, "LSHIndex");
  hashed
      .def(py::init([](std::size_t dim, std::string_view metric, std::string_view dtype,
                       std::size_t n_tables, std::size_t n_hashes, double width,
                       std::size_t sketch_bits, std::uint64_t seed) {
             return LSHIndex({.dim = dim,
                              .metric = parse_metric(metric),
                              .dtype = parse_dtype(dtype),
                              .n_tables = n_tables,
                              .n_hashes = n_hashes,
                              .width = width,
                              .sketch_bits = sketch_bits,
                              .seed = seed});
           }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"), py::arg("n_tables"),
           py::arg("n_hashes"), py::arg("width"), py::arg("sketch_bits"),
           py::arg("seed"))
      .def_property_readonly("dim", &LSHIndex::dim)
      .def_property_readonly("metric",
                             [](const LSHIndex& i) { return name_of(i.metric()); })
      .def_property_readonly("dtype",
                             [](const LSHIndex& i) { return name_of(i.dtype()); })
      .def_property_readonly("n_tables",
                             [](const LSHIndex& i) { return i.options().n_tables; })
      .def_property_readonly("n_hashes",
                             [](const LSHIndex& i) { return i.options().n_hashes; })
      .def_property_readonly("sketch_bits",
                             [](const LSHIndex& i) { return i.options().sketch_bits; })
      .def_property_readonly("width",
                             [](const LSHIndex& i) { return i.options().width; })
      .def(
          "search",
          [](const LSHIndex& self, const py::array& queries, std::size_t k,
             std::size_t n_probe, std::size_t rerank, const SlotSet* filter,
             std::size_t threads, py::object progress) {
            const RowsView view = as_wide(query_bytes(self), queries, "queries");
            return searched(view, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, k, n_probe, rerank, filter, threads,
                                          monitor, ids, distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("n_probe"), py::arg("rerank"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def(
          "search_radius",
          [](const LSHIndex& self, const py::array& queries, double radius,
             const SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = as_wide(query_bytes(self), queries, "queries");
            PyMonitor monitor(std::move(progress));
            search::Ragged found;
            {
              const py::gil_scoped_release released;
              found = self.search_radius(view, radius, filter, threads, &monitor);
            }
            return ragged(found);
          },
          py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"))
      .def(
          "hash_values",
          [](const LSHIndex& self, const py::array& vectors) {
            const RowsView view = as_wide(self.bytes_of_row(), vectors, "vectors");
            const index::LSHOptions options = self.options();
            Array<std::int32_t> out({view.rows, options.n_tables, options.n_hashes});
            std::int32_t* to = out.mutable_data();
            {
              const py::gil_scoped_release released;
              self.hash_values(view, to);
            }
            return out;
          },
          py::arg("vectors"))
      .def("stats", [](const LSHIndex& self) {
        LSHIndex::Stats stats;
        {
          const py::gil_scoped_release released;
          stats = self.stats();
        }
        py::dict result;
        result["vectors"] = stats.rows_bytes;
        result["tables"] = stats.tables_bytes;
        result["hashes"] = stats.hashes_bytes;
        result["sketches"] = stats.sketches_bytes;
        result["ids"] = stats.ids_bytes;
        result["buckets"] = stats.buckets;
        result["largest_bucket"] = stats.largest;
        result["waiting"] = stats.waiting;
        return result;
      });
  bind_rows(hashed);
  bind_single<SingleHashed>(hashed);
  bind_persistence(hashed, "lsh");
}

}  // namespace

void bind_trees(py::module_& m) {
  bind_kd_forest(m);
  bind_lsh(m);
}

}  // namespace annx::bindings
