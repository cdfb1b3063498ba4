// SPDX-License-Identifier: Apache-2.0
// What Python needs of the file format itself.
#include "annx/storage/checksum.h"
#include "annx/storage/file.h"
#include "common.h"

namespace annx::bindings {

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

}  // namespace annx::bindings
