// SPDX-License-Identifier: Apache-2.0
// annx._core.KDForestIndex and LSHIndex: indexes of rows that can go and change.
#include <utility>

#include "annx/index/kd_forest.h"
#include "annx/index/lsh.h"
#include "common.h"
#include "rows.h"
#include "single.h"

namespace annx::bindings {
namespace {

using index::KDForestIndex;
using index::LSHIndex;
using storage::SlotSet;

// --- k-d trees -----------------------------------------------------------------------

struct SingleTree {
  using Index = KDForestIndex;
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
      .def_property_readonly("n_trees",
                             [](const KDForestIndex& i) { return i.options().n_trees; })
      .def(
          "search",
          [](const KDForestIndex& self, const py::array& queries, std::size_t k,
             std::size_t checks, const SlotSet* filter, std::size_t threads,
             py::object progress) {
            const RowsView view = queries_of(self, queries);
            return searched(view.rows, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, k, checks, filter, threads, monitor,
                                          ids, distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("checks"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("stats", [](const KDForestIndex& self) {
        const auto stats = unlocked([&] { return self.stats(); });
        return named({{"vectors", stats.rows_bytes},
                      {"trees", stats.trees_bytes},
                      {"ids", stats.ids_bytes},
                      {"parts", stats.parts},
                      {"waiting", stats.waiting},
                      {"removed", stats.removed},
                      {"leaves", stats.leaves}});
      });
  bind_single<SingleTree>(forest);
  bind_held(forest, "kd_forest");
}

// --- hash tables ---------------------------------------------------------------------

struct SingleHashed {
  using Index = LSHIndex;
  static void run(const Index& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, wanted.ef, 0, nullptr, 1, monitor, ids,
                 distances);
  }
};

index::LSHOptions known(const LSHIndex& index) {
  return unlocked([&] { return index.options(); });
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
      .def_property_readonly("n_tables",
                             [](const LSHIndex& i) { return known(i).n_tables; })
      .def_property_readonly("n_hashes",
                             [](const LSHIndex& i) { return known(i).n_hashes; })
      .def_property_readonly("sketch_bits",
                             [](const LSHIndex& i) { return known(i).sketch_bits; })
      .def_property_readonly("width", [](const LSHIndex& i) { return known(i).width; })
      .def(
          "search",
          [](const LSHIndex& self, const py::array& queries, std::size_t k,
             std::size_t n_probe, std::size_t rerank, const SlotSet* filter,
             std::size_t threads, py::object progress) {
            const RowsView view = queries_of(self, queries);
            return searched(view.rows, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, k, n_probe, rerank, filter, threads,
                                          monitor, ids, distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("n_probe"), py::arg("rerank"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def(
          "hash_values",
          [](const LSHIndex& self, const py::array& vectors) {
            const RowsView view = vectors_of(self, vectors);
            const index::LSHOptions options = known(self);
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
        const auto stats = unlocked([&] { return self.stats(); });
        return named({{"vectors", stats.rows_bytes},
                      {"tables", stats.tables_bytes},
                      {"hashes", stats.hashes_bytes},
                      {"sketches", stats.sketches_bytes},
                      {"ids", stats.ids_bytes},
                      {"buckets", stats.buckets},
                      {"largest_bucket", stats.largest},
                      {"waiting", stats.waiting}});
      });
  bind_single<SingleHashed>(hashed);
  bind_held(hashed, "lsh");
}

}  // namespace

void bind_trees(py::module_& m) {
  bind_kd_forest(m);
  bind_lsh(m);
}

}  // namespace annx::bindings
