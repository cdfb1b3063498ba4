// SPDX-License-Identifier: Apache-2.0
// What every binding file shares: array arguments that are checked and never copied
// (Python prepares them), output arrays, and progress that returns to Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "annx/base/error.h"
#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"

namespace annx::bindings {

namespace py = pybind11;

// C-contiguous, exact dtype; pass with py::arg("x").noconvert().
template <class T>
using Array = py::array_t<T, py::array::c_style>;

template <class T>
MatrixView<T> matrix(const Array<T>& array, const char* argument) {
  if (array.ndim() != 2) {
    throw InvalidArgument(std::string(argument) + " has " +
                          std::to_string(array.ndim()) + " dimensions; it must have 2");
  }
  const auto cols = static_cast<std::size_t>(array.shape(1));
  return {array.data(), static_cast<std::size_t>(array.shape(0)), cols, cols};
}

// Rows of any element type, as bytes.
inline RowsView rows(const py::array& array, const char* argument) {
  if (array.ndim() != 2 || (array.flags() & py::array::c_style) == 0) {
    throw InvalidArgument(std::string(argument) + " must be a C-contiguous matrix");
  }
  return {static_cast<const std::byte*>(array.data()),
          static_cast<std::size_t>(array.shape(0)),
          static_cast<std::size_t>(array.shape(1) * array.itemsize())};
}

// Reports to a Python callable (done, total) and lets Ctrl-C stop the work: poll()
// takes the GIL, which every long call has released.
class PyMonitor final : public Monitor {
 public:
  explicit PyMonitor(py::object progress) : progress_(std::move(progress)) {}
  void poll(std::size_t done, std::size_t total) override {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (!progress_.is_none()) progress_(done, total);
  }

 private:
  py::object progress_;
};

void bind_codec(py::module_& m);
void bind_pq_flat(py::module_& m);
void bind_graph(py::module_& m);
void bind_ivf(py::module_& m);
void bind_flat(py::module_& m);
void bind_trees(py::module_& m);
void bind_transform(py::module_& m);

}  // namespace annx::bindings
