// SPDX-License-Identifier: Apache-2.0
// The extension module: errors, the file format itself, the kernels by name, all-pairs
// search, and the parts in their own files. (Each unit of bindings costs as much to
// compile as a thousand lines of anything else, so the short ones are together.)
#include <pybind11/stl.h>

#include <cstring>

#include "annx/base/types.h"
#include "annx/graph/knn_rows.h"
#include "annx/kernels/dispatch.h"
#include "annx/kernels/probe.h"
#include "annx/search/components.h"
#include "annx/storage/checksum.h"
#include "annx/storage/file.h"
#include "common.h"
#include "rows.h"

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
      "transformed_kind",
      [](const std::string& path) {
        const py::gil_scoped_release release;
        const auto reader = storage::FileReader::open(path, true, false);
        reader.expect_kind("transformed");
        return reader.text("index");
      },
      py::arg("path"), "The kind of index behind the transform of a file.");
  m.def(
      "file_checksum",
      [](const py::bytes& data) {
        const auto view = static_cast<std::string_view>(data);
        const py::gil_scoped_release release;
        return storage::checksum(std::as_bytes(std::span(view.data(), view.size())));
      },
      py::arg("data"), "The checksum of the file format, for tests.");
}

std::span<const std::byte> bytes_of(const Array<std::uint8_t>& a) {
  return std::as_bytes(std::span(a.data(), static_cast<std::size_t>(a.size())));
}

void probe_kernel(const std::string& isa, const std::string& kernel,
                  const std::string& op, const std::string& dtype,
                  const Array<std::uint8_t>& query, const Array<std::uint8_t>& rows,
                  const Array<std::uint32_t>& slots, Array<std::uint8_t>& first,
                  Array<std::uint8_t>& second, std::size_t dim, std::size_t count,
                  std::size_t stride, std::size_t offset, std::size_t queries,
                  std::size_t query_stride, std::size_t repeat) {
  kernels::Probe p;
  p.isa = isa;
  p.kernel = kernel;
  p.op = op;
  p.dtype = dtype;
  p.query = bytes_of(query);
  p.queries = queries;
  p.query_stride = query_stride;
  p.rows = bytes_of(rows);
  p.offset = offset;
  p.stride = stride;
  p.count = count;
  p.dim = dim;
  p.slots = std::span(slots.data(), static_cast<std::size_t>(slots.size()));
  p.repeat = repeat;
  const std::span<std::byte> out1 = std::as_writable_bytes(
      std::span(first.mutable_data(), static_cast<std::size_t>(first.size())));
  const std::span<std::byte> out2 = std::as_writable_bytes(
      std::span(second.mutable_data(), static_cast<std::size_t>(second.size())));
  const py::gil_scoped_release release;
  kernels::run_probe(p, out1, out2);
}

// The kernels by name, for tests and micro-benchmarks.
void bind_kernels(py::module_& m) {
  m.def(
      "isa", [] { return std::string(kernels::active().isa); },
      "Name of the instruction set in use.");
  m.def(
      "isas",
      [] {
        py::dict result;
        for (const auto& info : kernels::compiled_isas()) {
          result[py::str(info.name)] = info.supported;
        }
        return result;
      },
      "Compiled instruction sets, worst first, and whether this processor has them.");
  m.def("probe_kernel", &probe_kernel, py::arg("isa"), py::arg("kernel"), py::arg("op"),
        py::arg("dtype"), py::arg("query").noconvert(), py::arg("rows").noconvert(),
        py::arg("slots").noconvert(), py::arg("first").noconvert(),
        py::arg("second").noconvert(), py::kw_only(), py::arg("dim"), py::arg("count"),
        py::arg("stride"), py::arg("offset") = 0, py::arg("queries") = 1,
        py::arg("query_stride") = 0, py::arg("repeat") = 1,
        "Run one kernel of one instruction set on arrays of bytes, for tests and "
        "micro-benchmarks; the results go to first and second (as uint8).");
}

// --- all-pairs search, and connected components under a radius
// ------------------------

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

void bind_knn(py::module_& m) {
  m.def("knn_graph", &knn_graph, py::arg("vectors"), py::arg("dim"), py::arg("k"),
        py::arg("metric"), py::arg("dtype"), py::arg("recall"), py::arg("seed"),
        py::arg("threads"), py::arg("progress"));
  m.def("connected_components", &connected_components, py::arg("vectors"),
        py::arg("dim"), py::arg("radius"), py::arg("metric"), py::arg("dtype"),
        py::arg("threads"), py::arg("progress"));
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
  annx::bindings::bind_transform(m);  // indexes are saved with these
  annx::bindings::bind_flat(m);
  annx::bindings::bind_knn(m);
  annx::bindings::bind_pq_flat(m);
  annx::bindings::bind_graph(m);
  annx::bindings::bind_ivf(m);
  annx::bindings::bind_trees(m);
}
