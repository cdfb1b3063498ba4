// SPDX-License-Identifier: Apache-2.0
// The methods that bound classes have in common, behind interfaces: pybind11 then makes
// each of them once (methods.cpp), and not once for every class, which is what takes
// long to compile. A class says what it does in templates of a line or two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "annx/base/types.h"
#include "annx/search/exact.h"
#include "annx/storage/file.h"
#include "annx/storage/slot_set.h"
#include "common.h"

namespace annx::bindings {

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

// Of objects that Python holds: `self` is one of the class, new ones belong to Python.
class SavedMethods {
 public:
  virtual void save_to(const void* self, storage::FileWriter& writer) const = 0;
  virtual void* load_from(const storage::FileReader& reader) const = 0;
  virtual py::object give(void* owned) const = 0;

 protected:
  ~SavedMethods() = default;
};

class IndexMethods : public SavedMethods {
 public:
  virtual std::size_t dim(const void* self) const = 0;
  virtual Metric metric(const void* self) const = 0;
  virtual DType dtype(const void* self) const = 0;
  virtual std::uint64_t version(const void* self) const = 0;
  virtual std::size_t size(const void* self) const = 0;
  virtual bool contains(const void* self, std::int64_t id) const = 0;
  virtual void get(const void* self, std::span<const std::int64_t> ids,
                   std::byte* out) const = 0;
  virtual std::vector<std::int64_t> ids(const void* self) const = 0;
  virtual storage::SlotSet slot_set(const void* self,
                                    std::span<const std::int64_t> ids) const = 0;

 protected:
  ~IndexMethods() = default;
};

// Of an index whose vectors can go and change.
class HeldMethods : public IndexMethods {
 public:
  virtual void add(void* self, RowsView rows, const std::int64_t* ids,
                   std::int64_t* out, std::size_t threads, Monitor* monitor) const = 0;
  virtual void upsert(void* self, RowsView rows, const std::int64_t* ids) const = 0;
  virtual void remove(void* self, std::span<const std::int64_t> ids) const = 0;
  virtual search::Ragged search_radius(const void* self, RowsView queries,
                                       double radius, const storage::SlotSet* filter,
                                       std::size_t threads, Monitor* monitor) const = 0;

 protected:
  ~HeldMethods() = default;
};

template <class T, class Base>
class SavedMethodsOf : public Base {
 public:
  void save_to(const void* self, storage::FileWriter& writer) const final {
    of(self).save_to(writer);
  }
  void* load_from(const storage::FileReader& reader) const final {
    using Loaded = decltype(T::load_from(reader));
    // Options that a constructor refuses are the file's fault here, not the caller's.
    try {
      if constexpr (std::is_same_v<Loaded, T>) {
        return new T(T::load_from(reader));
      } else {
        return T::load_from(reader).release();
      }
    } catch (const InvalidArgument& error) {
      reader.fail("meta", error.what());
    }
  }
  py::object give(void* owned) const final {
    return py::cast(static_cast<T*>(owned), py::return_value_policy::take_ownership);
  }

 protected:
  ~SavedMethodsOf() = default;
  static T& of(void* self) { return *static_cast<T*>(self); }
  static const T& of(const void* self) { return *static_cast<const T*>(self); }
};

template <class Index, class Base>
class IndexMethodsOf : public SavedMethodsOf<Index, Base> {
 public:
  std::size_t dim(const void* self) const final { return dim_of(of(self)); }
  Metric metric(const void* self) const final { return metric_of(of(self)); }
  DType dtype(const void* self) const final { return dtype_of(of(self)); }
  std::size_t size(const void* self) const final { return of(self).size(); }
  std::uint64_t version(const void* self) const final {
    if constexpr (requires { of(self).version(); }) {
      return of(self).version();
    } else {
      return of(self).size();  // it only grows
    }
  }
  bool contains(const void* self, std::int64_t id) const final {
    return of(self).contains(id);
  }
  void get(const void* self, std::span<const std::int64_t> ids,
           std::byte* out) const final {
    if constexpr (requires { of(self).get(ids, out); }) {
      of(self).get(ids, out);
    } else {
      of(self).get(ids.data(), ids.size(), out);
    }
  }
  std::vector<std::int64_t> ids(const void* self) const final {
    if constexpr (requires { of(self).ids(); }) {
      return of(self).ids();
    } else {
      std::vector<std::int64_t> out(of(self).size());
      out.resize(of(self).ids(out.data(), out.size()));
      return out;
    }
  }
  storage::SlotSet slot_set(const void* self,
                            std::span<const std::int64_t> ids) const final {
    return of(self).slot_set(ids);
  }

 protected:
  ~IndexMethodsOf() = default;
  using SavedMethodsOf<Index, Base>::of;
};

template <class Index>
class HeldMethodsOf final : public IndexMethodsOf<Index, HeldMethods> {
 public:
  void add(void* self, RowsView rows, const std::int64_t* ids, std::int64_t* out,
           std::size_t threads, Monitor* monitor) const final {
    if constexpr (requires { of(self).add(as_taken(self, rows), ids, out); }) {
      // One copy of memory: it can be stopped before, and not within.
      if (monitor != nullptr) monitor->poll(0, rows.rows);
      of(self).add(as_taken(self, rows), ids, out);
    } else {
      of(self).add(as_taken(self, rows), ids, out, threads, monitor);
    }
  }
  void upsert(void* self, RowsView rows, const std::int64_t* ids) const final {
    of(self).upsert(as_taken(self, rows), ids);
  }
  void remove(void* self, std::span<const std::int64_t> ids) const final {
    of(self).remove(ids);
  }
  search::Ragged search_radius(const void* self, RowsView queries, double radius,
                               const storage::SlotSet* filter, std::size_t threads,
                               Monitor* monitor) const final {
    return of(self).search_radius(as_taken(self, queries), radius, filter, threads,
                                  monitor);
  }

 private:
  using IndexMethodsOf<Index, HeldMethods>::of;
  // An index of float32 alone may take matrices of them.
  static auto as_taken(const void* self, RowsView rows) {
    if constexpr (requires(Index& index) { index.upsert(rows, nullptr); }) {
      return rows;
    } else {
      return MatrixView<float>{reinterpret_cast<const float*>(rows.data), rows.rows,
                               dim_of(of(self)), rows.stride / sizeof(float)};
    }
  }
};

// save(path), to_bytes(), load(path, mmap, verify) and from_bytes(data). A path is
// str, or bytes in the file system's encoding; `verify` false skips payload checksums.
void bind_saved(py::handle type, const SavedMethods& methods, const char* kind);
// Those, the same in one file with a transform that stands before the index, and what
// an index tells of itself.
void bind_index(py::handle type, const IndexMethods& methods, const char* kind);
// Those, add, upsert, remove and search_radius.
void bind_held(py::handle type, const HeldMethods& methods, const char* kind);

template <class T, class... Options>
void bind_saved(py::class_<T, Options...>& bound, const char* kind) {
  struct Methods final : SavedMethodsOf<T, SavedMethods> {};
  static const Methods methods;
  bind_saved(bound, methods, kind);
}
template <class Index, class... Options>
void bind_index(py::class_<Index, Options...>& bound, const char* kind) {
  struct Methods final : IndexMethodsOf<Index, IndexMethods> {};
  static const Methods methods;
  bind_index(bound, methods, kind);
}
template <class Index, class... Options>
void bind_held(py::class_<Index, Options...>& bound, const char* kind) {
  static const HeldMethodsOf<Index> methods;
  bind_held(bound, methods, kind);
}

}  // namespace annx::bindings
