// SPDX-License-Identifier: Apache-2.0
// The extension module: errors and the parts in their own files.
#include "common.h"

namespace annx::bindings {
namespace {

// annx.errors defines the Python classes (in Python, so that they document and pickle);
// the translators look them up when they are needed.
void raise_as(const char* name, const char* what) {
  const py::object type = py::module_::import("annx.errors").attr(name);
  PyErr_SetString(type.ptr(), what);
}

void bind_errors() {
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const UnknownId& e) {
      PyErr_SetString(PyExc_KeyError, e.what());
    } catch (const InvalidArgument& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const NotTrained& e) {
      raise_as("NotTrainedError", e.what());
    } catch (const FormatError& e) {
      raise_as("FormatError", e.what());
    }
  });
}

}  // namespace
}  // namespace annx::bindings

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Compiled core of annx; the public API is in the annx package.";
  annx::bindings::bind_errors();
  annx::bindings::bind_kernels(m);
}
