// SPDX-License-Identifier: Apache-2.0
// One query by the shortest way from Python: a method beside pybind11's that takes an
// array as it is and returns a finished result. It does no more than look whether
// nothing needs to be converted, chosen or refused; whatever is not so plain, or goes
// wrong, it leaves to the long way by returning None, and that says what is wrong. (A
// bound function of pybind11, with arguments that Python has checked, costs about 2.5
// microseconds; this about 0.6. Small graphs answer in less than either.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "annx/base/repeat.h"
#include "annx/base/types.h"
#include "annx/search/canonical.h"
#include "common.h"
#include "rows.h"

namespace annx::bindings {

// What is searched for, when the plain case is met.
struct Single {
  RowsView query;
  std::size_t k = 0;
  std::size_t ef = 0;  // 0: not given
  // What else a family's searches take, numbers >= 0; below 0: not given.
  std::array<double, 2> numbers = {-1, -1};
};

// How many of Single::numbers a family has: its kNumbers, or none.
template <class Search>
constexpr Py_ssize_t numbers_of() {
  if constexpr (requires { Search::kNumbers; }) {
    return Search::kNumbers;
  } else {
    return 0;
  }
}

// An exact int from 1 to 2^31 - 1, or 0.
inline std::size_t plain_count(PyObject* object) {
  if (!PyLong_CheckExact(object)) return 0;
  int overflow = 0;
  const long value = PyLong_AsLongAndOverflow(object, &overflow);
  constexpr long kMost = 0x7FFFFFFF;
  return overflow == 0 && value > 0 && value <= kMost ? static_cast<std::size_t>(value)
                                                      : 0;
}

// A float or an int that is not negative, and not a NaN.
inline bool plain_number(PyObject* object, double& value) {
  if (PyFloat_CheckExact(object)) {
    value = PyFloat_AS_DOUBLE(object);
    return value >= 0 && value < 1e300;
  }
  if (!PyLong_CheckExact(object)) return false;
  int overflow = 0;
  value = static_cast<double>(PyLong_AsLongAndOverflow(object, &overflow));
  return overflow == 0 && value >= 0;
}

// NumPy's own object for the element type of a query; lives for ever.
inline const PyObject* descr_of(DType query) {
  using Api = py::detail::npy_api;
  static const std::array<PyObject*, 3> kinds = {
      Api::get().PyArray_DescrFromType_(Api::NPY_FLOAT_),
      Api::get().PyArray_DescrFromType_(Api::NPY_INT8_),
      Api::get().PyArray_DescrFromType_(Api::NPY_UINT8_)};
  switch (query) {
    case DType::kInt8: return kinds[1];
    case DType::kUInt8:
    case DType::kBits: return kinds[2];
    default: return kinds[0];
  }
}

// An uninitialised array: of shape (k,), or (1, k).
inline PyObject* new_array(int type, bool single, std::size_t k) {
  const auto& api = py::detail::npy_api::get();
  const Py_intptr_t shape[2] = {1, static_cast<Py_intptr_t>(k)};
  return api.PyArray_NewFromDescr_(api.PyArray_Type_, api.PyArray_DescrFromType_(type),
                                   single ? 1 : 2, single ? shape + 1 : shape, nullptr,
                                   nullptr, 0, nullptr);
}

// As object.__new__(type) with these attributes: a frozen class's own way to set them
// would cost more than all else here.
inline py::object new_result(PyObject* type, py::object ids, py::object distances,
                             Metric metric) {
  static PyObject* const names[3] = {PyUnicode_InternFromString("ids"),
                                     PyUnicode_InternFromString("distances"),
                                     PyUnicode_InternFromString("metric")};
  static const auto metrics = [] {
    std::array<PyObject*, kMetrics> all{};
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::string name(name_of(static_cast<Metric>(i)));
      all[i] = PyUnicode_InternFromString(name.c_str());
    }
    return all;
  }();
  static PyObject* const nothing = PyTuple_New(0);
  auto* const cls = reinterpret_cast<PyTypeObject*>(type);
  auto result = py::reinterpret_steal<py::object>(cls->tp_new(cls, nothing, nullptr));
  if (!result || PyObject_GenericSetAttr(result.ptr(), names[0], ids.ptr()) != 0 ||
      PyObject_GenericSetAttr(result.ptr(), names[1], distances.ptr()) != 0 ||
      PyObject_GenericSetAttr(result.ptr(), names[2],
                              metrics[static_cast<std::size_t>(metric)]) != 0) {
    throw py::error_already_set();
  }
  return result;
}

// `Search` has for an index of type `Index`:
//   static void run(const Index&, const Single&, Monitor*, std::int64_t* ids,
//                   float* distances);
// and may have
//   static constexpr Py_ssize_t kNumbers;  // at most 2
// The method's arguments: query, k, ef, threads, the result's class, the kNumbers
// numbers or None, and others that must be None.
template <class Search>
PyObject* search_single(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  using Index = typename Search::Index;
  constexpr Py_ssize_t kOwn = 5;
  const auto leave = [] { return Py_NewRef(Py_None); };
  if (count < kOwn || !PyType_Check(args[4])) return leave();
  Single wanted;
  for (Py_ssize_t i = kOwn; i < count; ++i) {
    if (args[i] == Py_None) continue;
    const Py_ssize_t number = i - kOwn;
    if (number >= numbers_of<Search>() ||
        !plain_number(args[i], wanted.numbers[static_cast<std::size_t>(number)])) {
      return leave();
    }
  }
  if (args[3] != Py_None && plain_count(args[3]) != 1) return leave();
  wanted.k = plain_count(args[1]);
  if (wanted.k == 0) return leave();
  if (args[2] != Py_None && (wanted.ef = plain_count(args[2])) == 0) return leave();

  const auto& api = py::detail::npy_api::get();
  if (Py_TYPE(args[0]) != api.PyArray_Type_) return leave();
  const auto* array = py::detail::array_proxy(args[0]);
  const bool one = array->nd == 1;
  if (!one && (array->nd != 2 || array->dimensions[0] != 1)) return leave();
  if ((array->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_) == 0) {
    return leave();
  }
  // The type is looked up once, and not by its name in every call.
  static const auto* const info = py::detail::get_type_info(typeid(Index));
  py::detail::type_caster_generic caster(info);
  if (!caster.load(self, false) || caster.value == nullptr) return leave();
  const auto& index = *static_cast<const Index*>(caster.value);
  const DType type = search::query_dtype(dtype_of(index));
  if (array->descr != descr_of(type)) return leave();
  const std::size_t bytes = row_bytes(type, dim_of(index));
  const auto columns = static_cast<std::size_t>(array->dimensions[one ? 0 : 1]);
  const std::size_t item = type == DType::kFloat32 ? sizeof(float) : 1;
  if (columns * item != bytes) return leave();
  wanted.query = {reinterpret_cast<const std::byte*>(array->data), 1, bytes};

  try {
    using Api = py::detail::npy_api;
    auto ids =
        py::reinterpret_steal<py::object>(new_array(Api::NPY_INT64_, one, wanted.k));
    auto distances =
        py::reinterpret_steal<py::object>(new_array(Api::NPY_FLOAT_, one, wanted.k));
    if (!ids || !distances) throw py::error_already_set();
    auto* id_data =
        reinterpret_cast<std::int64_t*>(py::detail::array_proxy(ids.ptr())->data);
    auto* distance_data =
        reinterpret_cast<float*>(py::detail::array_proxy(distances.ptr())->data);
    PyMonitor monitor((py::none()));
    {
      const py::gil_scoped_release released;
      Search::run(index, wanted, &monitor, id_data, distance_data);
    }
    return new_result(args[4], std::move(ids), std::move(distances), metric_of(index))
        .release()
        .ptr();
  } catch (py::error_already_set& error) {  // Ctrl-C, or no memory
    error.restore();
    return nullptr;
  } catch (const std::exception&) {
    return leave();
  }
}

// Adds the method `search_single` to a bound class.
template <class Search, class... Options>
void bind_single(py::class_<typename Search::Index, Options...>& bound) {
  static PyMethodDef definition = {
      "search_single",
      reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&search_single<Search>)),
      METH_FASTCALL,
      "search_single(self, query: typing.Any, k: typing.Any, ef: typing.Any, "
      "threads: typing.Any, result: type, /, *others: typing.Any) -> typing.Any\n\n"
      "The finished result of one plain query, or None: then take the long way."};
  auto method = py::reinterpret_steal<py::object>(
      PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(bound.ptr()), &definition));
  if (!method) throw py::error_already_set();
  bound.attr("search_single") = method;
  bound.def(
      "search_seconds",
      [](const typename Search::Index& self, const py::array& query, std::size_t k,
         std::size_t times) {
        const DType type = search::query_dtype(dtype_of(self));
        const Single wanted{.query = rows_of(query, type, dim_of(self), "query"),
                            .k = k};
        if (wanted.query.rows != 1) {
          throw InvalidArgument("query has " + std::to_string(wanted.query.rows) +
                                " rows; it must be one");
        }
        std::vector<std::int64_t> ids(k);
        std::vector<float> distances(k);
        const py::gil_scoped_release released;
        return seconds_of(times, [&] {
          Search::run(self, wanted, nullptr, ids.data(), distances.data());
        });
      },
      py::arg("query"), py::arg("k"), py::arg("times"),
      "What search_single spends in native code: the mean of `times` searches.");
}

}  // namespace annx::bindings
