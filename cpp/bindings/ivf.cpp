// SPDX-License-Identifier: Apache-2.0
// The inverted file index.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "annx/index/ivf.h"
#include "common.h"
#include "rows.h"
#include "single.h"

namespace annx::bindings {
namespace {

using index::IvfIndex;
using index::IvfOptions;

IvfOptions options_of(const py::dict& given) {
  IvfOptions o;
  o.dim = given["dim"].cast<std::size_t>();
  o.metric = parse_metric(given["metric"].cast<std::string>());
  o.dtype = parse_dtype(given["dtype"].cast<std::string>());
  o.storage = parse_dtype(given["storage"].cast<std::string>());
  o.keep_rows = given["keep_rows"].cast<bool>();
  o.codec = static_cast<index::IvfCodec>(given["codec"].cast<std::uint8_t>());
  o.grid_bits = given["grid_bits"].cast<std::size_t>();
  o.grid = given["scalar"].cast<bool>() ? codec::GridCodec::Kind::kScalar
                                        : codec::GridCodec::Kind::kRabitq;
  o.spill = given["spill"].cast<double>();
  o.turn = static_cast<codec::PieceCodec::Turn>(given["turn"].cast<std::uint8_t>());
  o.residual = given["residual"].cast<bool>();
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
                               r["codec"] = static_cast<std::uint8_t>(o.codec);
                               r["grid_bits"] = o.grid_bits;
                               r["scalar"] = o.grid == codec::GridCodec::Kind::kScalar;
                               r["spill"] = o.spill;
                               r["turn"] = static_cast<std::uint8_t>(o.turn);
                               r["residual"] = o.residual;
                               r["n_segments"] = o.n_segments;
                               r["n_probe"] = o.n_probe;
                               return r;
                             })
      .def_property_readonly(
          "trained",
          [](const IvfIndex& self) { return unlocked([&] { return self.trained(); }); })
      .def_property_readonly(
          "n_lists",
          [](const IvfIndex& self) { return unlocked([&] { return self.n_lists(); }); })
      .def(
          "train",
          [](IvfIndex& self, const py::array& vectors, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const RowsView view = vectors_of(self, vectors);
            const py::gil_scoped_release release;
            self.train(view, threads, &monitor);
          },
          py::arg("vectors"), py::arg("threads"), py::arg("progress"))
      .def(
          "search",
          [](const IvfIndex& self, const py::array& queries, std::size_t k,
             std::size_t n_probe, double rerank, double epsilon,
             const storage::SlotSet* filter, std::size_t threads, py::object progress) {
            const RowsView view = queries_of(self, queries);
            const IvfIndex::Search how{
                .k = k, .n_probe = n_probe, .rerank = rerank, .epsilon = epsilon};
            return searched(view.rows, k, std::move(progress),
                            [&](std::int64_t* ids, float* distances, Monitor* monitor) {
                              self.search(view, how, filter, threads, monitor, ids,
                                          distances);
                            });
          },
          py::arg("queries"), py::arg("k"), py::arg("n_probe"), py::arg("rerank"),
          py::arg("epsilon"), py::arg("filter").none(true), py::arg("threads"),
          py::arg("progress"))
      .def("list_sizes",
           [](const IvfIndex& self) {
             return unlocked([&] { return self.list_sizes(); });
           })
      .def("centroids",
           [](const IvfIndex& self) {
             const auto values = unlocked([&] { return self.centroids(); });
             const std::size_t dim = self.options().dim;
             return Array<float>({values.size() / dim, dim}, values.data());
           })
      .def("memory", [](const IvfIndex& self) {
        const auto memory = unlocked([&] { return self.memory(); });
        return named({{"codes", memory.codes},
                      {"rows", memory.rows},
                      {"centroids", memory.centroids},
                      {"ids", memory.ids}});
      });
  bind_single<SingleIvf>(ivf);
  bind_held(ivf, "ivf");
}

}  // namespace annx::bindings
