// SPDX-License-Identifier: Apache-2.0
// The flat index over product codes.
#include <string>
#include <utility>
#include <vector>

#include "annx/index/pq_flat.h"
#include "common.h"
#include "rows.h"

namespace annx::bindings {
namespace {

using index::PQFlatIndex;

MatrixView<float> wide(const PQFlatIndex& self, const Array<float>& array,
                       const char* name) {
  const auto view = matrix(array, name);
  if (view.cols != self.options().dim) {
    throw InvalidArgument(std::string(name) + " has rows of another width");
  }
  return view;
}

}  // namespace

void bind_pq_flat(py::module_& m) {
  py::class_<PQFlatIndex> pq(m, "PQFlatIndex");
  pq.def(py::init([](std::size_t dim, std::size_t n_segments, std::size_t n_bits,
                     std::string_view metric, std::size_t n_iterations,
                     std::size_t sample_limit, std::uint64_t seed) {
           return PQFlatIndex({.dim = dim,
                               .n_segments = n_segments,
                               .n_bits = n_bits,
                               .metric = parse_metric(metric),
                               .n_iterations = n_iterations,
                               .sample_limit = sample_limit,
                               .seed = seed});
         }),
         py::kw_only(), py::arg("dim"), py::arg("n_segments"), py::arg("n_bits"),
         py::arg("metric"), py::arg("n_iterations"), py::arg("sample_limit"),
         py::arg("seed"))
      .def_property_readonly(
          "n_segments", [](const PQFlatIndex& s) { return s.options().n_segments; })
      .def_property_readonly("n_bits",
                             [](const PQFlatIndex& s) { return s.options().n_bits; })
      .def_property_readonly("trained",
                             [](const PQFlatIndex& self) {
                               return unlocked([&] { return self.trained(); });
                             })
      .def(
          "train",
          [](PQFlatIndex& self, const Array<float>& vectors, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = wide(self, vectors, "vectors");
            const py::gil_scoped_release release;
            self.train(rows, threads, &monitor);
          },
          py::arg("vectors").noconvert(), py::arg("threads"), py::arg("progress"))
      .def(
          "search",
          [](const PQFlatIndex& self, const Array<float>& queries, std::size_t k,
             std::size_t rerank, const storage::SlotSet* filter, std::size_t threads,
             py::object progress) {
            const auto rows = wide(self, queries, "queries");
            return searched(rows.rows, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(rows, k, rerank, filter, threads, monitor,
                                          ids, distances);
                            });
          },
          py::arg("queries").noconvert(), py::arg("k"), py::arg("rerank"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("memory", [](const PQFlatIndex& self) {
        const auto memory = unlocked([&] { return self.memory(); });
        return named({{"codes", memory.codes},
                      {"rows", memory.rows},
                      {"codebooks", memory.codebooks},
                      {"ids", memory.ids}});
      });
  bind_held(pq, "pq_flat");
}

}  // namespace annx::bindings
