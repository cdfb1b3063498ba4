// SPDX-License-Identifier: Apache-2.0
// What the bindings of all indexes repeat: arguments that are rows, and results of
// searches.
#pragma once

#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annx/base/types.h"
#include "annx/search/exact.h"
#include "annx/storage/slot_set.h"
#include "common.h"
#include "methods.h"

namespace annx::bindings {

using Ids = Array<std::int64_t>;

inline std::span<const std::int64_t> span_of(const Ids& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
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

}  // namespace annx::bindings
