// SPDX-License-Identifier: Apache-2.0
// The flat index over product codes.
#include <pybind11/stl.h>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annx/index/pq_flat.h"
#include "common.h"
#include "persist.h"

namespace annx::bindings {
namespace {

using index::PQFlatIndex;

std::span<const std::int64_t> span_of(const Array<std::int64_t>& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
}

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
  using Ids = Array<std::int64_t>;
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
      .def_property_readonly("dim",
                             [](const PQFlatIndex& s) { return s.options().dim; })
      .def_property_readonly(
          "n_segments", [](const PQFlatIndex& s) { return s.options().n_segments; })
      .def_property_readonly("n_bits",
                             [](const PQFlatIndex& s) { return s.options().n_bits; })
      .def_property_readonly(
          "metric",
          [](const PQFlatIndex& s) { return std::string(name_of(s.options().metric)); })
      .def_property_readonly("dtype", [](const PQFlatIndex&) { return "float32"; })
      .def_property_readonly("version", &PQFlatIndex::version)
      .def_property_readonly("trained", &PQFlatIndex::trained)
      .def("__len__", &PQFlatIndex::size, py::call_guard<py::gil_scoped_release>())
      .def("contains", &PQFlatIndex::contains, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
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
          "add",
          [](PQFlatIndex& self, const Array<float>& vectors,
             const std::optional<Ids>& ids, std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = wide(self, vectors, "vectors");
            Ids out(static_cast<py::ssize_t>(rows.rows));
            std::int64_t* to = out.mutable_data();
            const std::int64_t* given = ids ? ids->data() : nullptr;
            {
              const py::gil_scoped_release release;
              self.add(rows, given, to, threads, &monitor);
            }
            return out;
          },
          py::arg("vectors").noconvert(), py::arg("ids"), py::arg("threads"),
          py::arg("progress"))
      .def(
          "upsert",
          [](PQFlatIndex& self, const Array<float>& vectors, const Ids& ids) {
            const auto rows = wide(self, vectors, "vectors");
            const std::int64_t* given = ids.data();
            const py::gil_scoped_release release;
            self.upsert(rows, given);
          },
          py::arg("vectors").noconvert(), py::arg("ids").noconvert())
      .def(
          "remove",
          [](PQFlatIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release release;
            self.remove(span);
          },
          py::arg("ids").noconvert())
      .def(
          "get",
          [](const PQFlatIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            Array<std::uint8_t> out({span.size(), self.options().dim * sizeof(float)});
            auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
            {
              const py::gil_scoped_release release;
              self.get(span, to);
            }
            return out;
          },
          py::arg("ids").noconvert(), "Rows as bytes.")
      .def("ids",
           [](const PQFlatIndex& self) {
             std::vector<std::int64_t> out;
             {
               const py::gil_scoped_release release;
               out.resize(self.size());
               out.resize(self.ids(out.data(), out.size()));
             }
             return Ids(static_cast<py::ssize_t>(out.size()), out.data());
           })
      .def(
          "slot_set",
          [](const PQFlatIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release release;
            return self.slot_set(span);
          },
          py::arg("ids").noconvert())
      .def(
          "search",
          [](const PQFlatIndex& self, const Array<float>& queries, std::size_t k,
             std::size_t rerank, const storage::SlotSet* filter, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = wide(self, queries, "queries");
            Ids ids({rows.rows, k});
            Array<float> distances({rows.rows, k});
            std::int64_t* to_ids = ids.mutable_data();
            float* to_distances = distances.mutable_data();
            {
              const py::gil_scoped_release release;
              self.search(rows, k, rerank, filter, threads, &monitor, to_ids,
                          to_distances);
            }
            return py::make_tuple(ids, distances);
          },
          py::arg("queries").noconvert(), py::arg("k"), py::arg("rerank"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def(
          "search_radius",
          [](const PQFlatIndex& self, const Array<float>& queries, double radius,
             const storage::SlotSet* filter, std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = wide(self, queries, "queries");
            search::Ragged found;
            {
              const py::gil_scoped_release release;
              found = self.search_radius(rows, radius, filter, threads, &monitor);
            }
            const auto size = static_cast<py::ssize_t>(found.ids.size());
            return py::make_tuple(Ids(static_cast<py::ssize_t>(found.offsets.size()),
                                      found.offsets.data()),
                                  Ids(size, found.ids.data()),
                                  Array<float>(size, found.distances.data()));
          },
          py::arg("queries").noconvert(), py::arg("radius"),
          py::arg("filter").none(true), py::arg("threads"), py::arg("progress"))
      .def("memory", [](const PQFlatIndex& self) {
        PQFlatIndex::Memory memory;
        {
          const py::gil_scoped_release release;
          memory = self.memory();
        }
        py::dict result;
        result["codes"] = memory.codes;
        result["rows"] = memory.rows;
        result["codebooks"] = memory.codebooks;
        result["ids"] = memory.ids;
        return result;
      });
  bind_persistence(pq, "pq_flat");
}

}  // namespace annx::bindings
