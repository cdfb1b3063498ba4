// SPDX-License-Identifier: Apache-2.0
// Transforms that stand before an index.
#include "annx/codec/transform.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common.h"
#include "methods.h"

namespace annx::bindings {
namespace {

using codec::Transform;
using codec::TransformStep;

template <class T>
storage::Array<T> kept(const std::optional<Array<T>>& given) {
  storage::Array<T> values(given ? static_cast<std::size_t>(given->size()) : 0);
  if (given) std::copy_n(given->data(), values.size(), values.mutable_data());
  return values;
}

template <class T>
Array<T> copied(const storage::Array<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

Transform chain_of(const py::list& given) {
  std::vector<const Transform*> parts;
  for (const py::handle part : given) parts.push_back(part.cast<const Transform*>());
  return Transform(parts);
}

Array<float> apply(const Transform& self, const py::array& vectors, bool queries,
                   std::size_t threads, py::object progress) {
  const RowsView view = rows(vectors, queries ? "queries" : "vectors");
  const std::size_t dim = queries ? self.query_dim() : self.input_dim();
  if (view.stride != dim * sizeof(float)) {
    throw InvalidArgument("rows have another width than the transform takes");
  }
  Array<float> out({view.rows, self.dim()});
  float* to = out.mutable_data();
  PyMonitor monitor(std::move(progress));
  {
    const py::gil_scoped_release released;
    self.apply(view, queries, to, threads, &monitor);
  }
  return out;
}

// One query of plain float32, without what Python checks first; None for any other.
py::object apply_one(const Transform& self, const py::object& query) {
  if (!py::isinstance<Array<float>>(query)) return py::none();
  const auto array = py::reinterpret_borrow<Array<float>>(query);
  const std::size_t dim = self.query_dim();
  if (array.ndim() != 1 || static_cast<std::size_t>(array.size()) != dim) {
    return py::none();
  }
  Array<float> out(static_cast<py::ssize_t>(self.dim()));
  float* to = out.mutable_data();
  const RowsView view{reinterpret_cast<const std::byte*>(array.data()), 1,
                      dim * sizeof(float)};
  {
    const py::gil_scoped_release released;
    self.apply(view, true, to, 1, nullptr);
  }
  return out;
}

}  // namespace

void bind_transform(py::module_& m) {
  py::class_<Transform> transform(m, "Transform");
  transform
      .def(py::init([](std::string_view kind, std::size_t input, std::size_t dim,
                       std::size_t query_input, std::uint64_t seed,
                       const std::optional<Array<float>>& shift,
                       const std::optional<Array<float>>& matrix,
                       const std::optional<Array<float>>& scales,
                       const std::optional<Array<double>>& variances,
                       const std::optional<Array<std::uint32_t>>& columns) {
             TransformStep step;
             step.kind = codec::parse_step(kind);
             step.input = input;
             step.dim = dim;
             step.query_input = query_input;
             step.seed = seed;
             step.shift = kept(shift);
             step.matrix = kept(matrix);
             step.scales = kept(scales);
             step.variances = kept(variances);
             step.columns = kept(columns);
             return Transform(std::move(step));
           }),
           py::kw_only(), py::arg("kind"), py::arg("input"), py::arg("dim"),
           py::arg("query_input"), py::arg("seed") = 0,
           py::arg("shift").noconvert() = py::none(),
           py::arg("matrix").noconvert() = py::none(),
           py::arg("scales").noconvert() = py::none(),
           py::arg("variances").noconvert() = py::none(),
           py::arg("columns").noconvert() = py::none())
      .def_static("chain", &chain_of, py::arg("parts"))
      .def("__len__", &Transform::steps)
      .def("part", &Transform::part, py::arg("i"))
      .def_property_readonly("input_dim", &Transform::input_dim)
      .def_property_readonly("query_dim", &Transform::query_dim)
      .def_property_readonly("dim", &Transform::dim)
      .def_property_readonly("memory_bytes", &Transform::memory_bytes)
      // Of the first step.
      .def_property_readonly(
          "kind",
          [](const Transform& self) { return std::string(name_of(self.step(0).kind)); })
      .def_property_readonly("seed",
                             [](const Transform& self) { return self.step(0).seed; })
      .def_property_readonly(
          "shift", [](const Transform& self) { return copied(self.step(0).shift); })
      .def_property_readonly(
          "matrix",
          [](const Transform& self) {
            const TransformStep& step = self.step(0);
            return Array<float>(
                {step.matrix.size() / step.query_input, step.query_input},
                step.matrix.data());
          })
      .def_property_readonly(
          "scales", [](const Transform& self) { return copied(self.step(0).scales); })
      .def_property_readonly(
          "variances",
          [](const Transform& self) { return copied(self.step(0).variances); })
      .def_property_readonly(
          "columns", [](const Transform& self) { return copied(self.step(0).columns); })
      .def("apply", &apply, py::arg("rows").noconvert(), py::arg("queries"),
           py::arg("threads"), py::arg("progress"))
      .def("apply_one", &apply_one, py::arg("query"));
  bind_saved(transform, "transform");
}

}  // namespace annx::bindings
