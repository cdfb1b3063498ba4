// SPDX-License-Identifier: Apache-2.0
// The kernels by name, for tests and micro-benchmarks.
#include <pybind11/stl.h>

#include "annx/kernels/dispatch.h"
#include "annx/kernels/probe.h"
#include "common.h"

namespace annx::bindings {
namespace {

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

}  // namespace

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

}  // namespace annx::bindings
