// SPDX-License-Identifier: Apache-2.0
// All-pairs search, and connected components under a radius.
#include <vector>

#include "annx/base/types.h"
#include "annx/graph/knn_rows.h"
#include "annx/search/components.h"
#include "rows.h"

namespace annx::bindings {
namespace {

py::tuple knn_graph(const py::array& vectors, std::size_t dim, std::size_t k,
                    std::string_view metric, std::string_view dtype, double recall,
                    std::uint64_t seed, std::size_t threads,
                    const py::object& progress) {
  const RowsView view = rows_of(vectors, parse_dtype(dtype), dim, "vectors");
  double reached = 0;
  py::tuple found =
      searched(view.rows, k, progress,
               [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                 const Borrowed borrowed(view, dim, metric, dtype);
                 reached = graph::knn_rows(borrowed.set, k, recall, seed, threads,
                                           monitor, ids, distances);
               });
  return py::make_tuple(found[0], found[1], reached);
}

Array<std::int64_t> connected_components(const py::array& vectors, std::size_t dim,
                                         double radius, std::string_view metric,
                                         std::string_view dtype, std::size_t threads,
                                         const py::object& progress) {
  const RowsView view = rows_of(vectors, parse_dtype(dtype), dim, "vectors");
  Array<std::int64_t> labels(static_cast<py::ssize_t>(view.rows));
  std::int64_t* out = labels.mutable_data();
  PyMonitor monitor(progress);
  {
    const py::gil_scoped_release released;
    const Borrowed borrowed(view, dim, metric, dtype);
    search::connected_components(borrowed.set, radius, threads, &monitor, out);
  }
  return labels;
}

}  // namespace

void bind_knn(py::module_& m) {
  m.def("knn_graph", &knn_graph, py::arg("vectors"), py::arg("dim"), py::arg("k"),
        py::arg("metric"), py::arg("dtype"), py::arg("recall"), py::arg("seed"),
        py::arg("threads"), py::arg("progress"));
  m.def("connected_components", &connected_components, py::arg("vectors"),
        py::arg("dim"), py::arg("radius"), py::arg("metric"), py::arg("dtype"),
        py::arg("threads"), py::arg("progress"));
}

}  // namespace annx::bindings
