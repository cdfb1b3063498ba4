// SPDX-License-Identifier: Apache-2.0
// save, load and bytes for every bound class that offers
// `void save_to(FileWriter&) const` and `static T load_from(const FileReader&)`; for
// indexes also in one file with a transform that stands before them.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "annx/codec/transform.h"
#include "annx/storage/file.h"
#include "common.h"

namespace annx::bindings {

// Options that a constructor refuses are the file's fault here, not the caller's.
template <class T>
auto restore(const storage::FileReader& reader) {
  try {
    return T::load_from(reader);
  } catch (const InvalidArgument& error) {
    reader.fail("meta", error.what());
  }
}

// Adds save(path), to_bytes(), load(path, mmap, verify) and from_bytes(data). A path is
// str, or bytes in the file system's encoding; `verify` false skips payload checksums.
template <class T, class... Options>
void bind_persistence(py::class_<T, Options...>& bound, const char* kind) {
  bound.def(
      "save",
      [kind](const T& self, const std::string& path) {
        const py::gil_scoped_release release;
        storage::FileWriter writer(kind);
        self.save_to(writer);
        writer.write(path);
      },
      py::arg("path"));
  bound.def("to_bytes", [kind](const T& self) {
    // The bytes are written where Python keeps them: a second copy of a large index may
    // not fit. Making room takes the GIL, which must not be waited for while an index
    // holds its lock, so the room is made between two looks at the size.
    py::bytes result;
    for (std::size_t size = 0, needed = 1; size != needed;) {
      size = needed;
      PyObject* raw =
          PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(size));
      if (raw == nullptr) throw py::error_already_set();
      result = py::reinterpret_steal<py::bytes>(raw);
      auto* data = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(raw));
      const py::gil_scoped_release release;
      storage::FileWriter writer(kind);
      self.save_to(writer);
      needed = writer.size();
      if (size == needed) writer.write_to({data, size});
    }
    return result;
  });
  bound.def_static(
      "load",
      [kind](const std::string& path, bool mmap, bool verify) {
        const py::gil_scoped_release release;
        const auto reader = storage::FileReader::open(path, mmap, verify);
        reader.expect_kind(kind);
        return restore<T>(reader);
      },
      py::arg("path"), py::arg("mmap") = false, py::arg("verify") = true);
  bound.def_static(
      "from_bytes",
      [kind](const py::bytes& data) {
        const auto view = static_cast<std::string_view>(data);
        const py::gil_scoped_release release;
        const auto reader = storage::FileReader::from_bytes(view);
        reader.expect_kind(kind);
        return restore<T>(reader);
      },
      py::arg("data"));
}

// A file of this kind holds the sections of a transform and those of an index, whose
// own kind is the entry "index". (Readers that know no transforms refuse it.)
inline constexpr const char* kTransformed = "transformed";

// bind_persistence, and the same with a transform.
template <class T, class... Options>
void bind_index_persistence(py::class_<T, Options...>& bound, const char* kind) {
  bind_persistence(bound, kind);
  bound.def(
      "save_transformed",
      [kind](const T& self, const std::string& path,
             const codec::Transform& transform) {
        const py::gil_scoped_release release;
        storage::FileWriter writer(kTransformed);
        writer.text("index", kind);
        transform.save_to(writer);
        self.save_to(writer);
        writer.write(path);
      },
      py::arg("path"), py::arg("transform"));
  bound.def_static(
      "load_transformed",
      [kind](const std::string& path, bool mmap, bool verify) {
        const py::gil_scoped_release release;
        const auto reader = storage::FileReader::open(path, mmap, verify);
        reader.expect_kind(kTransformed);
        reader.require(reader.text("index") == kind, "meta", "the index is another");
        return std::pair(restore<T>(reader), codec::Transform::load_from(reader));
      },
      py::arg("path"), py::arg("mmap"), py::arg("verify"));
}

}  // namespace annx::bindings
