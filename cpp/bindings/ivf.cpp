// SPDX-License-Identifier: Apache-2.0
// The inverted file index.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "annx/index/ivf.h"
#include "common.h"
#include "persist.h"
#include "single.h"

namespace annx::bindings {
namespace {

using index::IvfIndex;
using index::IvfOptions;

std::span<const std::int64_t> span_of(const Array<std::int64_t>& ids) {
  return {ids.data(), static_cast<std::size_t>(ids.size())};
}

RowsView wide(const IvfIndex& self, const py::array& array, DType dtype,
              const char* name) {
  const RowsView view = rows(array, name);
  if (view.stride != row_bytes(dtype, self.options().dim)) {
    throw InvalidArgument(std::string(name) + " has rows of another width");
  }
  return view;
}

IvfOptions options_of(const py::dict& given) {
  IvfOptions o;
  o.dim = given["dim"].cast<std::size_t>();
  o.metric = parse_metric(given["metric"].cast<std::string>());
  o.dtype = parse_dtype(given["dtype"].cast<std::string>());
  o.storage = parse_dtype(given["storage"].cast<std::string>());
  o.keep_rows = given["keep_rows"].cast<bool>();
  o.codec = given["pq"].cast<bool>() ? codec::PieceCodec::Kind::kProduct
                                     : codec::PieceCodec::Kind::kRabitq;
  o.n_segments = given["n_segments"].cast<std::size_t>();
  o.n_lists = given["n_lists"].cast<std::size_t>();
  o.n_probe = given["n_probe"].cast<std::size_t>();
  o.n_iterations = given["n_iterations"].cast<std::size_t>();
  o.sample_limit = given["sample_limit"].cast<std::size_t>();
  o.seed = given["seed"].cast<std::uint64_t>();
  return o;
}

struct SingleIvf {
  using Index = IvfIndex;
  static constexpr Py_ssize_t kNumbers = 2;  // rerank, epsilon
  static DType dtype(const IvfIndex& index) { return index.options().dtype; }
  static Metric metric(const IvfIndex& index) { return index.options().metric; }
  static std::size_t dim(const IvfIndex& index) { return index.options().dim; }
  static void run(const IvfIndex& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    IvfIndex::Search how{.k = wanted.k, .n_probe = index.options().n_probe};
    if (wanted.ef != 0) how.n_probe = wanted.ef;
    if (wanted.numbers[0] >= 0) how.rerank = wanted.numbers[0];
    if (wanted.numbers[1] >= 0) how.epsilon = wanted.numbers[1];
    index.search(wanted.query, how, nullptr, 1, monitor, ids, distances);
  }
};

}  // namespace

void bind_ivf(py::module_& m) {
  using Ids = Array<std::int64_t>;
  py::class_<IvfIndex, std::unique_ptr<IvfIndex>> ivf(m, "IVFIndex");
  ivf.def(py::init([](const py::dict& options) {
            return std::make_unique<IvfIndex>(options_of(options));
          }),
          py::arg("options"))
      .def_property_readonly("options",
                             [](const IvfIndex& self) {
                               const IvfOptions& o = self.options();
                               py::dict r;
                               r["storage"] = o.keep_rows
                                                  ? std::string(name_of(o.storage))
                                                  : std::string("codes");
                               r["pq"] = o.codec == codec::PieceCodec::Kind::kProduct;
                               r["n_segments"] = o.n_segments;
                               r["n_probe"] = o.n_probe;
                               return r;
                             })
      .def_property_readonly("dim", [](const IvfIndex& s) { return s.options().dim; })
      .def_property_readonly(
          "metric",
          [](const IvfIndex& s) { return std::string(name_of(s.options().metric)); })
      .def_property_readonly(
          "dtype",
          [](const IvfIndex& s) { return std::string(name_of(s.options().dtype)); })
      .def_property_readonly("version", &IvfIndex::version)
      .def_property_readonly("trained", &IvfIndex::trained)
      .def_property_readonly("n_lists", &IvfIndex::n_lists)
      .def("__len__", &IvfIndex::size, py::call_guard<py::gil_scoped_release>())
      .def("contains", &IvfIndex::contains, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "train",
          [](IvfIndex& self, const py::array& vectors, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto view = wide(self, vectors, self.options().dtype, "vectors");
            const py::gil_scoped_release release;
            self.train(view, threads, &monitor);
          },
          py::arg("vectors"), py::arg("threads"), py::arg("progress"))
      .def(
          "add",
          [](IvfIndex& self, const py::array& vectors, const std::optional<Ids>& ids,
             std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto view = wide(self, vectors, self.options().dtype, "vectors");
            Ids out(static_cast<py::ssize_t>(view.rows));
            std::int64_t* to = out.mutable_data();
            const std::int64_t* given = ids ? ids->data() : nullptr;
            {
              const py::gil_scoped_release release;
              self.add(view, given, to, threads, &monitor);
            }
            return out;
          },
          py::arg("vectors"), py::arg("ids"), py::arg("threads"), py::arg("progress"))
      .def(
          "upsert",
          [](IvfIndex& self, const py::array& vectors, const Ids& ids) {
            const auto view = wide(self, vectors, self.options().dtype, "vectors");
            const std::int64_t* given = ids.data();
            const py::gil_scoped_release release;
            self.upsert(view, given);
          },
          py::arg("vectors"), py::arg("ids").noconvert())
      .def(
          "remove",
          [](IvfIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release release;
            self.remove(span);
          },
          py::arg("ids").noconvert())
      .def(
          "get",
          [](const IvfIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            Array<std::uint8_t> out(
                {span.size(), row_bytes(self.options().dtype, self.options().dim)});
            auto* to = reinterpret_cast<std::byte*>(out.mutable_data());
            {
              const py::gil_scoped_release release;
              self.get(span, to);
            }
            return out;
          },
          py::arg("ids").noconvert(), "Rows as bytes.")
      .def("ids",
           [](const IvfIndex& self) {
             std::vector<std::int64_t> out;
             {
               const py::gil_scoped_release release;
               out.resize(self.size());
               out.resize(self.ids(out.data(), out.size()));
             }
             return Ids(static_cast<py::ssize_t>(out.size()), out.data());
           })
      .def(
          "slot_set",
          [](const IvfIndex& self, const Ids& ids) {
            const auto span = span_of(ids);
            const py::gil_scoped_release release;
            return self.slot_set(span);
          },
          py::arg("ids").noconvert())
      .def(
          "search",
          [](const IvfIndex& self, const py::array& queries, std::size_t k,
             std::size_t n_probe, double rerank, double epsilon,
             const storage::SlotSet* filter, std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto view = wide(
                self, queries, search::query_dtype(self.options().dtype), "queries");
            Ids ids({view.rows, k});
            Array<float> distances({view.rows, k});
            std::int64_t* to_ids = ids.mutable_data();
            float* to_distances = distances.mutable_data();
            {
              const py::gil_scoped_release release;
              self.search(
                  view,
                  {.k = k, .n_probe = n_probe, .rerank = rerank, .epsilon = epsilon},
                  filter, threads, &monitor, to_ids, to_distances);
            }
            return py::make_tuple(ids, distances);
          },
          py::arg("queries"), py::arg("k"), py::arg("n_probe"), py::arg("rerank"),
          py::arg("epsilon"), py::arg("filter").none(true), py::arg("threads"),
          py::arg("progress"))
      .def(
          "search_radius",
          [](const IvfIndex& self, const py::array& queries, double radius,
             const storage::SlotSet* filter, std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto view = wide(
                self, queries, search::query_dtype(self.options().dtype), "queries");
            search::Ragged found;
            {
              const py::gil_scoped_release release;
              found = self.search_radius(view, radius, filter, threads, &monitor);
            }
            const auto size = static_cast<py::ssize_t>(found.ids.size());
            return py::make_tuple(Ids(static_cast<py::ssize_t>(found.offsets.size()),
                                      found.offsets.data()),
                                  Ids(size, found.ids.data()),
                                  Array<float>(size, found.distances.data()));
          },
          py::arg("queries"), py::arg("radius"), py::arg("filter").none(true),
          py::arg("threads"), py::arg("progress"))
      .def("list_sizes",
           [](const IvfIndex& self) {
             std::vector<std::size_t> sizes;
             {
               const py::gil_scoped_release release;
               sizes = self.list_sizes();
             }
             return sizes;
           })
      .def("centroids",
           [](const IvfIndex& self) {
             std::vector<float> values;
             {
               const py::gil_scoped_release release;
               values = self.centroids();
             }
             const std::size_t dim = self.options().dim;
             return Array<float>({values.size() / dim, dim}, values.data());
           })
      .def("memory", [](const IvfIndex& self) {
        IvfIndex::Memory memory;
        {
          const py::gil_scoped_release release;
          memory = self.memory();
        }
        py::dict result;
        result["codes"] = memory.codes;
        result["rows"] = memory.rows;
        result["centroids"] = memory.centroids;
        result["ids"] = memory.ids;
        return result;
      });
  bind_single<SingleIvf>(ivf);
  bind_persistence(ivf, "ivf");
}

}  // namespace annx::bindings
