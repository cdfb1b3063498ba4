// SPDX-License-Identifier: Apache-2.0
#include "methods.h"

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "annx/codec/transform.h"
#include "rows.h"

namespace annx::bindings {
namespace {

// A file of this kind holds the sections of a transform and those of an index, whose
// own kind is the entry "index". (Readers that know no transforms refuse it.)
constexpr const char* kTransformed = "transformed";

// The object of a bound class behind its Python object.
class Self {
 public:
  explicit Self(py::handle type)
      : info_(py::detail::get_type_info(reinterpret_cast<PyTypeObject*>(type.ptr()))) {}
  void* operator()(const py::object& self) const {
    py::detail::type_caster_generic caster(info_);
    if (!caster.load(self, false) || caster.value == nullptr) {
      throw py::type_error("self is of another class");
    }
    return caster.value;
  }

 private:
  const py::detail::type_info* info_;
};

template <class Function, class... Extra>
void def(py::handle type, const char* name, Function&& function,
         const Extra&... extra) {
  py::setattr(type, name,
              py::cpp_function(std::forward<Function>(function), py::name(name),
                               py::is_method(type), extra...));
}
template <class Function, class... Extra>
void def_static(py::handle type, const char* name, Function&& function,
                const Extra&... extra) {
  py::setattr(
      type, name,
      py::staticmethod(py::cpp_function(std::forward<Function>(function),
                                        py::name(name), py::scope(type), extra...)));
}
template <class Function>
void def_property(py::handle type, const char* name, Function&& function) {
  const py::handle property(reinterpret_cast<PyObject*>(&PyProperty_Type));
  py::setattr(type, name,
              property(py::cpp_function(std::forward<Function>(function),
                                        py::is_method(type))));
}

}  // namespace

void bind_saved(py::handle type, const SavedMethods& methods, const char* kind) {
  const Self at(type);
  const SavedMethods* const m = &methods;
  def(
      type, "save",
      [at, m, kind](const py::object& self, const std::string& path) {
        const void* const object = at(self);
        const py::gil_scoped_release release;
        storage::FileWriter writer(kind);
        m->save_to(object, writer);
        writer.write(path);
      },
      py::arg("path"));
  def(type, "to_bytes", [at, m, kind](const py::object& self) {
    // The bytes are written where Python keeps them: a second copy of a large index may
    // not fit. Making room takes the GIL, which must not be waited for while an index
    // holds its lock, so the room is made between two looks at the size.
    const void* const object = at(self);
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
      m->save_to(object, writer);
      needed = writer.size();
      if (size == needed) writer.write_to({data, size});
    }
    return result;
  });
  def_static(
      type, "load",
      [m, kind](const std::string& path, bool mmap, bool verify) {
        return m->give(unlocked([&] {
          const auto reader = storage::FileReader::open(path, mmap, verify);
          reader.expect_kind(kind);
          return m->load_from(reader);
        }));
      },
      py::arg("path"), py::arg("mmap") = false, py::arg("verify") = true);
  def_static(
      type, "from_bytes",
      [m, kind](const py::bytes& data) {
        const auto view = static_cast<std::string_view>(data);
        return m->give(unlocked([&] {
          const auto reader = storage::FileReader::from_bytes(view);
          reader.expect_kind(kind);
          return m->load_from(reader);
        }));
      },
      py::arg("data"));
}

void bind_index(py::handle type, const IndexMethods& methods, const char* kind) {
  bind_saved(type, methods, kind);
  const Self at(type);
  const IndexMethods* const m = &methods;
  def(
      type, "save_transformed",
      [at, m, kind](const py::object& self, const std::string& path,
                    const codec::Transform& transform) {
        const void* const object = at(self);
        const py::gil_scoped_release release;
        storage::FileWriter writer(kTransformed);
        writer.text("index", kind);
        transform.save_to(writer);
        m->save_to(object, writer);
        writer.write(path);
      },
      py::arg("path"), py::arg("transform"));
  def_static(
      type, "load_transformed",
      [m, kind](const std::string& path, bool mmap, bool verify) {
        std::optional<codec::Transform> transform;
        void* const index = unlocked([&] {
          const auto reader = storage::FileReader::open(path, mmap, verify);
          reader.expect_kind(kTransformed);
          reader.require(reader.text("index") == kind, "meta", "the index is another");
          transform = codec::Transform::load_from(reader);
          return m->load_from(reader);
        });
        return py::make_tuple(m->give(index), std::move(*transform));
      },
      py::arg("path"), py::arg("mmap"), py::arg("verify"));
  def_property(type, "dim",
               [at, m](const py::object& self) { return m->dim(at(self)); });
  def_property(type, "metric", [at, m](const py::object& self) {
    return name_of(m->metric(at(self)));
  });
  def_property(type, "dtype",
               [at, m](const py::object& self) { return name_of(m->dtype(at(self))); });
  // Reading waits where an index is being changed.
  def_property(type, "version", [at, m](const py::object& self) {
    return unlocked([m, object = at(self)] { return m->version(object); });
  });
  def(type, "__len__", [at, m](const py::object& self) {
    return unlocked([m, object = at(self)] { return m->size(object); });
  });
  def(
      type, "contains",
      [at, m](const py::object& self, std::int64_t id) {
        return unlocked([=, object = at(self)] { return m->contains(object, id); });
      },
      py::arg("id"));
  def(
      type, "get",
      [at, m](const py::object& self, const Ids& ids) {
        const void* const object = at(self);
        const auto span = span_of(ids);
        Array<std::uint8_t> out(
            {span.size(), row_bytes(m->dtype(object), m->dim(object))});
        auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
        {
          const py::gil_scoped_release released;
          m->get(object, span, to);
        }
        return out;
      },
      py::arg("ids").noconvert(), "Rows as bytes.");
  def(type, "ids", [at, m](const py::object& self) {
    return give(unlocked([m, object = at(self)] { return m->ids(object); }));
  });
  def(
      type, "slot_set",
      [at, m](const py::object& self, const Ids& ids) {
        const auto span = span_of(ids);
        return unlocked([=, object = at(self)] { return m->slot_set(object, span); });
      },
      py::arg("ids").noconvert());
}

void bind_held(py::handle type, const HeldMethods& methods, const char* kind) {
  bind_index(type, methods, kind);
  const Self at(type);
  const HeldMethods* const m = &methods;
  const auto rows_for = [m](const void* object, const py::array& array, bool queries) {
    const DType dtype = m->dtype(object);
    return rows_of(array, queries ? search::query_dtype(dtype) : dtype, m->dim(object),
                   queries ? "queries" : "vectors");
  };
  def(
      type, "add",
      [=](const py::object& self, const py::array& vectors,
          const std::optional<Ids>& ids, std::size_t threads, py::object progress) {
        void* const object = at(self);
        const RowsView view = rows_for(object, vectors, false);
        Ids out(static_cast<py::ssize_t>(view.rows));
        std::int64_t* to = out.mutable_data();
        const std::int64_t* given = ids ? ids->data() : nullptr;
        PyMonitor monitor(std::move(progress));
        {
          const py::gil_scoped_release released;
          m->add(object, view, given, to, threads, &monitor);
        }
        return out;
      },
      py::arg("vectors"), py::arg("ids"), py::arg("threads"), py::arg("progress"));
  def(
      type, "upsert",
      [=](const py::object& self, const py::array& vectors, const Ids& ids) {
        void* const object = at(self);
        const RowsView view = rows_for(object, vectors, false);
        const std::int64_t* given = ids.data();
        const py::gil_scoped_release released;
        m->upsert(object, view, given);
      },
      py::arg("vectors"), py::arg("ids").noconvert());
  def(
      type, "remove",
      [=](const py::object& self, const Ids& ids) {
        void* const object = at(self);
        const auto span = span_of(ids);
        const py::gil_scoped_release released;
        m->remove(object, span);
      },
      py::arg("ids").noconvert());
  def(
      type, "search_radius",
      [=](const py::object& self, const py::array& queries, double radius,
          const storage::SlotSet* filter, std::size_t threads, py::object progress) {
        const void* const object = at(self);
        const RowsView view = rows_for(object, queries, true);
        PyMonitor monitor(std::move(progress));
        return give(unlocked([&] {
          return m->search_radius(object, view, radius, filter, threads, &monitor);
        }));
      },
      py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
      py::arg("threads"), py::arg("progress"));
}

}  // namespace annx::bindings
