// SPDX-License-Identifier: Apache-2.0
// What the bindings of all indexes repeat: their facts, arguments that are rows,
// results of searches, and the methods that indexes have in common.
#pragma once

#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annx/base/types.h"
#include "annx/search/exact.h"
#include "annx/storage/slot_set.h"
#include "common.h"

namespace annx::bindings {

using Ids = Array<std::int64_t>;

inline std::span<const std::int64_t> span_of(const Ids& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
}

// An index's dimensions, metric and type, by themselves or among its options.
template <class Index>
std::size_t dim_of(const Index& index) {
  if constexpr (requires { index.dim(); }) {
    return index.dim();
  } else {
    return index.options().dim;
  }
}
template <class Index>
Metric metric_of(const Index& index) {
  if constexpr (requires { index.metric(); }) {
    return index.metric();
  } else {
    return index.options().metric;
  }
}
template <class Index>
DType dtype_of(const Index& index) {
  if constexpr (requires { index.dtype(); }) {
    return index.dtype();
  } else if constexpr (requires { index.options().dtype; }) {
    return index.options().dtype;
  } else {
    return DType::kFloat32;  // the only one that it takes
  }
}

// Rows of `dim` elements of a type.
inline RowsView rows_of(const py::array& array, DType dtype, std::size_t dim,
                        const char* name) {
  const RowsView view = rows(array, name);
  if (view.stride != row_bytes(dtype, dim)) {
    throw InvalidArgument(std::string(name) + " has rows of another width");
  }
  return view;
}
template <class Index>
RowsView vectors_of(const Index& index, const py::array& array) {
  return rows_of(array, dtype_of(index), dim_of(index), "vectors");
}
template <class Index>
RowsView queries_of(const Index& index, const py::array& array) {
  return rows_of(array, search::query_dtype(dtype_of(index)), dim_of(index), "queries");
}

// What `read` returns, without the GIL: reading waits where an index is being changed.
template <class Read>
auto unlocked(Read&& read) {
  const py::gil_scoped_release released;
  return read();
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

inline auto give(search::Ragged&& found) {
  return py::make_tuple(give(std::move(found.offsets)), give(std::move(found.ids)),
                        give(std::move(found.distances)));
}

// Named numbers: what memory() and stats() are to Python.
inline py::dict named(
    std::initializer_list<std::pair<const char*, std::size_t>> numbers) {
  py::dict result;
  for (const auto& [name, number] : numbers) result[name] = number;
  return result;
}

// (ids, distances), (queries, k) each, of run(ids, distances, monitor).
template <class Run>
auto searched(std::size_t queries, std::size_t k, py::object progress, Run&& run) {
  Ids ids({queries, k});
  Array<float> distances({queries, k});
  std::int64_t* ids_out = ids.mutable_data();
  float* distances_out = distances.mutable_data();
  PyMonitor monitor(std::move(progress));
  {
    const py::gil_scoped_release released;
    run(ids_out, distances_out, &monitor);
  }
  return py::make_tuple(std::move(ids), std::move(distances));
}

// Rows that are searched where they lie, without an index.
struct Borrowed {
  search::RowSet set;
  std::vector<float> norms;

  Borrowed(RowsView rows, std::size_t dim, std::string_view metric,
           std::string_view dtype) {
    set.metric = parse_any_metric(metric);
    set.dtype = parse_dtype(dtype);
    set.dim = dim;
    set.rows = rows.data;
    set.stride = rows.stride;
    set.count = rows.rows;
    if (!search::keeps_norms(set.metric)) return;
    norms.resize(rows.rows);
    search::row_norms(set.metric, set.dtype, rows, dim, norms.data());
    set.norms = norms.data();
  }
};

// The methods of an index whose vectors are held under ids, and can go.
template <class Index, class... Options>
void bind_held(py::class_<Index, Options...>& bound) {
  bound.def_property_readonly("dim", [](const Index& self) { return dim_of(self); })
      .def_property_readonly("metric",
                             [](const Index& self) { return name_of(metric_of(self)); })
      .def_property_readonly("dtype",
                             [](const Index& self) { return name_of(dtype_of(self)); })
      .def_property_readonly("version", &Index::version)
      .def("__len__", &Index::size, py::call_guard<py::gil_scoped_release>())
      .def("contains", &Index::contains, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
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
            Array<std::uint8_t> out(
                {span.size(), row_bytes(dtype_of(self), dim_of(self))});
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
             return give(unlocked([&] {
               std::vector<std::int64_t> out(self.size());
               out.resize(self.ids(out.data(), out.size()));
               return out;
             }));
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

// Those, and upsert and search_radius by rows of the index's own type.
template <class Index, class... Options>
void bind_rows(py::class_<Index, Options...>& bound) {
  bind_held(bound);
  bound
      .def(
          "upsert",
          [](Index& self, const py::array& vectors, const Ids& ids) {
            const RowsView view = vectors_of(self, vectors);
            const std::int64_t* given = ids.data();
            const py::gil_scoped_release released;
            self.upsert(view, given);
          },
          py::arg("vectors"), py::arg("ids").noconvert())
      .def(
          "search_radius",
          [](const Index& self, const py::array& queries, double radius,
             const storage::SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = queries_of(self, queries);
            PyMonitor monitor(std::move(progress));
            return give(unlocked([&] {
              return self.search_radius(view, radius, filter, threads, &monitor);
            }));
          },
          py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"));
}

// add() of an index to which that is more work than copying.
template <class Index, class... Options>
void bind_add(py::class_<Index, Options...>& bound) {
  bound.def(
      "add",
      [](Index& self, const py::array& vectors, const std::optional<Ids>& ids,
         std::size_t threads, py::object progress) {
        const RowsView view = vectors_of(self, vectors);
        Ids out(static_cast<py::ssize_t>(view.rows));
        std::int64_t* to = out.mutable_data();
        const std::int64_t* given = ids ? ids->data() : nullptr;
        PyMonitor monitor(std::move(progress));
        {
          const py::gil_scoped_release released;
          self.add(view, given, to, threads, &monitor);
        }
        return out;
      },
      py::arg("vectors"), py::arg("ids"), py::arg("threads"), py::arg("progress"));
}

}  // namespace annx::bindings
