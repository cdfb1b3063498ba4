// SPDX-License-Identifier: Apache-2.0
// The extension module: errors, what Python needs of the file format itself, and the
// parts in their own files.
#include <cstring>

#include "annx/storage/checksum.h"
#include "annx/storage/file.h"
#include "common.h"

namespace annx::bindings {
namespace {

// annx.errors defines the Python classes (in Python, so that they document and pickle);
// the translators look them up when they are needed.
void raise_as(const char* name, const char* what) {
  const py::object type = py::module_::import("annx.errors").attr(name);
  // A path in the message may hold bytes that are no UTF-8.
  const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      what, static_cast<py::ssize_t>(std::strlen(what)), "backslashreplace"));
  if (text) PyErr_SetObject(type.ptr(), text.ptr());
}

// OSError picks its subclass (FileNotFoundError and the like) by errno.
void raise_os_error(const FileError& error) {
  const auto path = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefaultAndSize(
      error.path().data(), static_cast<py::ssize_t>(error.path().size())));
  if (!path) return;
  const int code = error.code().value();
  const std::string message = error.code().message();
  const auto arguments = py::make_tuple(code, message, path);
  PyErr_SetObject(PyExc_OSError, arguments.ptr());
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
    } catch (const FileError& e) {
      raise_os_error(e);
    }
  });
}

void bind_storage(py::module_& m) {
  m.def(
      "file_kind",
      [](const std::string& path) {
        const py::gil_scoped_release release;
        return storage::FileReader::kind_of(path);
      },
      py::arg("path"), "The kind of object that a file holds, from its header.");
  m.def(
      "file_checksum",
      [](const py::bytes& data) {
        const auto view = static_cast<std::string_view>(data);
        const py::gil_scoped_release release;
        return storage::checksum(std::as_bytes(std::span(view.data(), view.size())));
      },
      py::arg("data"), "The checksum of the file format, for tests.");
}

}  // namespace
}  // namespace annx::bindings

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Compiled core of annx; the public API is in the annx package.";
  m.attr("__version__") = ANNX_VERSION;
  annx::bindings::bind_errors();
  annx::bindings::bind_codec(m);
  annx::bindings::bind_kernels(m);
  annx::bindings::bind_storage(m);
  annx::bindings::bind_flat(m);
  annx::bindings::bind_pq_flat(m);
  annx::bindings::bind_graph(m);
}
