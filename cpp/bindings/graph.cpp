// SPDX-License-Identifier: Apache-2.0
// annx._core.GraphIndex.
#include <pybind11/stl.h>

#include <algorithm>

#include "annx/index/graph.h"
#include "common.h"
#include "persist.h"
#include "single.h"

namespace annx::bindings {

using index::GraphIndex;

namespace {

// The beam's width; 0 asks for the default.
std::size_t width_of(std::size_t k, std::size_t ef) {
  return ef != 0 ? ef : std::max<std::size_t>(64, 2 * k);
}

struct SingleGraph {
  using Index = GraphIndex;
  static DType dtype(const GraphIndex& index) { return index.options().dtype; }
  static Metric metric(const GraphIndex& index) { return index.options().metric; }
  static std::size_t dim(const GraphIndex& index) { return index.options().dim; }
  static void run(const GraphIndex& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, width_of(wanted.k, wanted.ef), nullptr, 1, ids,
                 distances, monitor);
  }
};

// One query gives vectors rather than one-row matrices, which Python would have to
// slice.
py::tuple search(const GraphIndex& self, const py::array& queries, std::size_t k,
                 std::size_t ef, bool single, const storage::SlotSet* filter,
                 std::size_t threads, py::object progress) {
  const RowsView view = rows(queries, "queries");
  const auto shape = [&] {
    return single ? std::vector<std::size_t>{k}
                  : std::vector<std::size_t>{view.rows, k};
  };
  Array<std::int64_t> ids(shape());
  Array<float> distances(shape());
  std::int64_t* id_data = ids.mutable_data();
  float* distance_data = distances.mutable_data();
  PyMonitor monitor(std::move(progress));
  {
    const py::gil_scoped_release release;
    self.search(view, k, width_of(k, ef), filter, resolve_threads(threads), id_data,
                distance_data, &monitor);
  }
  return py::make_tuple(std::move(ids), std::move(distances));
}

}  // namespace

void bind_graph(py::module_& m) {
  py::class_<GraphIndex> graph(m, "GraphIndex");
  graph
      .def(py::init([](std::size_t dim, const std::string& metric,
                       const std::string& dtype, std::size_t degree,
                       std::size_t ef_construction, float alpha, std::uint64_t seed) {
             index::GraphOptions options;
             options.dim = dim;
             options.metric = parse_metric(metric);
             options.dtype = parse_dtype(dtype);
             options.build = {.degree = degree,
                              .ef_construction = ef_construction,
                              .alpha = alpha,
                              .seed = seed};
             return std::make_unique<GraphIndex>(options);
           }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"), py::kw_only(),
           py::arg("degree"), py::arg("ef_construction"), py::arg("alpha"),
           py::arg("seed"))
      .def("__len__", &GraphIndex::size)
      .def("contains", &GraphIndex::contains, py::arg("id"))
      .def_property_readonly("version", &GraphIndex::size)
      .def_property_readonly("dim",
                             [](const GraphIndex& self) { return self.options().dim; })
      .def_property_readonly(
          "metric",
          [](const GraphIndex& self) { return name_of(self.options().metric); })
      .def_property_readonly(
          "dtype", [](const GraphIndex& self) { return name_of(self.options().dtype); })
      .def_property_readonly(
          "degree", [](const GraphIndex& self) { return self.options().build.degree; })
      .def_property_readonly(
          "ef_construction",
          [](const GraphIndex& self) { return self.options().build.ef_construction; })
      .def(
          "slot_set",
          [](const GraphIndex& self, const Array<std::int64_t>& ids) {
            const std::span<const std::int64_t> view(
                ids.data(), static_cast<std::size_t>(ids.size()));
            const py::gil_scoped_release release;
            return self.slot_set(view);
          },
          py::arg("ids").noconvert())
      .def(
          "add",
          [](GraphIndex& self, const py::array& vectors,
             const std::optional<Array<std::int64_t>>& ids, std::size_t threads,
             py::object progress) {
            const RowsView view = rows(vectors, "vectors");
            PyMonitor monitor(std::move(progress));
            const std::int64_t* given = ids ? ids->data() : nullptr;
            const py::gil_scoped_release release;
            return self.add(view, given, resolve_threads(threads), &monitor);
          },
          py::arg("vectors").noconvert(), py::arg("ids").none(true), py::arg("threads"),
          py::arg("progress").none(true))
      .def("search", &search, py::arg("queries").noconvert(), py::arg("k"),
           py::arg("ef"), py::arg("single"), py::arg("filter").none(true),
           py::arg("threads"), py::arg("progress").none(true))
      .def(
          "get",
          [](const GraphIndex& self, const Array<std::int64_t>& ids) {
            const std::size_t bytes =
                row_bytes(self.options().dtype, self.options().dim);
            Array<std::uint8_t> out({static_cast<std::size_t>(ids.size()), bytes});
            auto* data = reinterpret_cast<std::byte*>(out.mutable_data());
            const std::int64_t* wanted = ids.data();
            const auto count = static_cast<std::size_t>(ids.size());
            {
              const py::gil_scoped_release release;
              self.get(wanted, count, data);
            }
            return out;
          },
          py::arg("ids").noconvert())
      .def("ids",
           [](const GraphIndex& self) {
             const std::vector<std::int64_t> ids = self.ids();
             return Array<std::int64_t>(static_cast<py::ssize_t>(ids.size()),
                                        ids.data());
           })
      .def("neighbours", &GraphIndex::neighbours, py::arg("id"))
      .def("memory",
           [](const GraphIndex& self) {
             const index::GraphStats stats = self.stats(false);
             py::dict result;
             result["vectors"] = stats.rows_bytes;
             result["links"] = stats.links_bytes;
             result["ids"] = stats.ids_bytes;
             return result;
           })
      .def("stats", [](const GraphIndex& self) {
        index::GraphStats stats;
        {
          const py::gil_scoped_release release;
          stats = self.stats(true);
        }
        py::dict result;
        result["links"] = stats.links;
        result["max_links"] = stats.max_links;
        result["reachable"] = stats.reachable;
        result["split_rows"] = stats.split_rows;
        return result;
      });
  bind_single<SingleGraph>(graph);
  bind_persistence(graph, "graph");
}

}  // namespace annx::bindings
