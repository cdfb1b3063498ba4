// SPDX-License-Identifier: Apache-2.0
// annx._core.GraphIndex.
#include <algorithm>
#include <cstring>

#include "annx/index/graph.h"
#include "common.h"
#include "rows.h"
#include "single.h"

namespace annx::bindings {

using index::GraphIndex;

namespace {

// The beam's width; 0 asks for the default.
std::size_t width_of(std::size_t k, std::size_t ef) {
  return ef != 0 ? ef : std::max<std::size_t>(64, 2 * k);
}

struct SingleGraph {
  using Index = GraphIndex;
  static void run(const GraphIndex& index, const Single& wanted, Monitor* monitor,
                  std::int64_t* ids, float* distances) {
    index.search(wanted.query, wanted.k, width_of(wanted.k, wanted.ef), nullptr, 1, ids,
                 distances, monitor);
  }
};

// One query gives vectors rather than one-row matrices, which Python would have to
// slice.
py::tuple search(const GraphIndex& self, const py::array& queries, std::size_t k,
                 std::size_t ef, bool single, const storage::SlotSet* filter,
                 std::size_t threads, py::object progress) {
  const RowsView view = rows(queries, "queries");
  const auto shape = [&] {
    return single ? std::vector<std::size_t>{k}
                  : std::vector<std::size_t>{view.rows, k};
  };
  Array<std::int64_t> ids(shape());
  Array<float> distances(shape());
  std::int64_t* id_data = ids.mutable_data();
  float* distance_data = distances.mutable_data();
  PyMonitor monitor(std::move(progress));
  {
    const py::gil_scoped_release release;
    self.search(view, k, width_of(k, ef), filter, resolve_threads(threads), id_data,
                distance_data, &monitor);
  }
  return py::make_tuple(std::move(ids), std::move(distances));
}

}  // namespace

void bind_graph(py::module_& m) {
  py::class_<GraphIndex> graph(m, "GraphIndex");
  graph
      .def(py::init([](std::size_t dim, const std::string& metric,
                       const std::string& dtype, bool codes, bool narrow, bool small,
                       std::size_t degree, std::size_t ef_construction, float alpha,
                       std::uint64_t seed) {
             index::GraphOptions options;
             options.dim = dim;
             options.metric = parse_any_metric(metric);
             options.dtype = parse_dtype(dtype);
             options.codes = codes;
             options.narrow = narrow;
             options.small = small;
             options.build = {.degree = degree,
                              .ef_construction = ef_construction,
                              .alpha = alpha,
                              .seed = seed};
             return std::make_unique<GraphIndex>(options);
           }),
           py::arg("dim"), py::arg("metric"), py::arg("dtype"), py::kw_only(),
           py::arg("codes"), py::arg("narrow"), py::arg("small"), py::arg("degree"),
           py::arg("ef_construction"), py::arg("alpha"), py::arg("seed"))
      .def_property_readonly(
          "degree", [](const GraphIndex& self) { return self.options().build.degree; })
      .def_property_readonly(
          "codes", [](const GraphIndex& self) { return self.options().codes; })
      .def_property_readonly(
          "narrow", [](const GraphIndex& self) { return self.options().narrow; })
      .def_property_readonly(
          "small", [](const GraphIndex& self) { return self.options().small; })
      .def_property_readonly(
          "ef_construction",
          [](const GraphIndex& self) { return self.options().build.ef_construction; })
      .def(
          "add",
          [](GraphIndex& self, const py::array& vectors,
             const std::optional<Array<std::int64_t>>& ids, std::size_t threads,
             py::object progress, const std::optional<Array<std::uint32_t>>& near,
             const std::optional<py::array>& queries) {
            const RowsView view = rows(vectors, "vectors");
            RowsView sample;
            if (queries) sample = queries_of(self, *queries);
            PyMonitor monitor(std::move(progress));
            const std::int64_t* given = ids ? ids->data() : nullptr;
            graph::KnnGraph lists;
            if (near) {
              if (near->ndim() != 2 ||
                  static_cast<std::size_t>(near->shape(0)) != view.rows) {
                throw InvalidArgument("neighbours must have a row for each vector");
              }
              lists.k = static_cast<std::size_t>(near->shape(1));
              lists.slots = AlignedBuffer(static_cast<std::size_t>(near->nbytes()));
              std::memcpy(lists.slots.data(), near->data(), lists.slots.size());
            }
            const py::gil_scoped_release release;
            return self.add(view, given, resolve_threads(threads), &monitor,
                            std::move(lists), sample);
          },
          py::arg("vectors").noconvert(), py::arg("ids").none(true), py::arg("threads"),
          py::arg("progress").none(true), py::arg("neighbours").none(true),
          py::arg("queries").none(true))
      .def("search", &search, py::arg("queries").noconvert(), py::arg("k"),
           py::arg("ef"), py::arg("single"), py::arg("filter").none(true),
           py::arg("threads"), py::arg("progress").none(true))
      .def("neighbours", &GraphIndex::neighbours, py::arg("id"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "link_codes",
          [](const GraphIndex& self, std::int64_t id) {
            const auto links = unlocked([&] { return self.link_codes(id); });
            const auto n = static_cast<py::ssize_t>(links.ids.size());
            const auto parts =
                n == 0 ? 0 : static_cast<py::ssize_t>(links.codes.size()) / n;
            return py::make_tuple(Array<std::int64_t>(n, links.ids.data()),
                                  Array<std::uint8_t>({n, parts}, links.codes.data()),
                                  Array<float>(n, links.offsets.data()),
                                  Array<float>(n, links.scales.data()));
          },
          py::arg("id"))
      .def(
          "estimate_links",
          [](const GraphIndex& self, const py::array& query, std::int64_t id) {
            const RowsView view = rows(query, "query");
            float key = 0;
            const auto keys =
                unlocked([&] { return self.estimate_links(view.row(0), id, key); });
            return py::make_tuple(
                key, Array<float>(static_cast<py::ssize_t>(keys.size()), keys.data()));
          },
          py::arg("query").noconvert(), py::arg("id"))
      .def("link_codec",
           [](const GraphIndex& self) -> py::object {
             const codec::LinkCodec* codec = self.link_codec();
             if (codec == nullptr) return py::none();
             const auto axes = static_cast<py::ssize_t>(codec->axes());
             const auto dim = static_cast<py::ssize_t>(codec->dim());
             py::dict result;
             result["axes"] = Array<float>({axes, dim}, codec->axes_matrix().data());
             result["widths"] = Array<std::uint8_t>(
                 static_cast<py::ssize_t>(codec->parts()), codec->widths().data());
             result["levels"] =
                 Array<float>({axes, static_cast<py::ssize_t>(kernels::kLinkLevels)},
                              codec->levels().data());
             result["mean"] = Array<float>(dim, codec->mean().data());
             result["products"] = codec->products();
             return result;
           })
      .def("grid",
           [](const GraphIndex& self) -> py::object {
             const codec::RowGrid* grid = self.grid();
             if (grid == nullptr) return py::none();
             py::dict result;
             result["step"] = grid->step(0);
             result["turned"] = grid->turned();
             result["centre"] =
                 Array<float>(static_cast<py::ssize_t>(grid->centre().size()),
                              grid->centre().data());
             return result;
           })
      .def("memory",
           [](const GraphIndex& self) {
             const auto stats = unlocked([&] { return self.stats(false); });
             return named({{"vectors", stats.rows_bytes},
                           {"links", stats.links_bytes},
                           {"codes", stats.codes_bytes},
                           {"ids", stats.ids_bytes}});
           })
      .def("stats", [](const GraphIndex& self) {
        const auto stats = unlocked([&] { return self.stats(true); });
        py::dict result;
        result["links"] = stats.links;
        result["max_links"] = stats.max_links;
        result["reachable"] = stats.reachable;
        result["split_rows"] = stats.split_rows;
        result["narrow_rows"] = stats.narrow_rows;
        result["byte_rows"] = stats.byte_rows;
        result["byte_error"] = stats.byte_error;
        result["turned_rows"] = stats.turned_rows;
        result["wide_rows"] = stats.wide_rows;
        result["centred"] = stats.centred;
        result["code_parts"] = stats.code_parts;
        result["code_error"] = stats.code_error;
        result["growth"] = stats.growth;
        return result;
      });
  bind_single<SingleGraph>(graph);
  bind_index(graph, "graph");
}

}  // namespace annx::bindings
