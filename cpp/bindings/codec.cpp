// SPDX-License-Identifier: Apache-2.0
// k-means and product quantization.
#include <algorithm>

#include "annx/base/random.h"
#include "annx/codec/kmeans.h"
#include "common.h"
#include "persist.h"

namespace annx::bindings {
namespace {

codec::KMeansStart parse_start(std::string_view name) {
  if (name == "random") return codec::KMeansStart::kRandom;
  if (name == "k-means++") return codec::KMeansStart::kPlusPlus;
  return codec::KMeansStart::kGiven;
}

const char* name_of_start(codec::KMeansStart start) {
  if (start == codec::KMeansStart::kRandom) return "random";
  return start == codec::KMeansStart::kPlusPlus ? "k-means++" : "given";
}

codec::KMeans make_kmeans(std::size_t n_clusters, std::size_t n_iterations,
                          std::size_t n_restarts, std::size_t sample_limit,
                          std::string_view start, bool spherical, double tolerance,
                          std::uint64_t seed) {
  return codec::KMeans({.n_clusters = n_clusters,
                        .n_iterations = n_iterations,
                        .n_restarts = n_restarts,
                        .sample_limit = sample_limit,
                        .start = parse_start(start),
                        .spherical = spherical,
                        .tolerance = tolerance,
                        .seed = seed});
}

template <class T>
Array<T> copied(const T* data, std::size_t count) {
  return Array<T>(static_cast<py::ssize_t>(count), data);
}

void bind_kmeans(py::module_& m) {
  using codec::KMeans;
  py::class_<KMeans> kmeans(m, "KMeans");
  kmeans
      .def(py::init(&make_kmeans), py::kw_only(), py::arg("n_clusters"),
           py::arg("n_iterations"), py::arg("n_restarts"), py::arg("sample_limit"),
           py::arg("start"), py::arg("spherical"), py::arg("tolerance"),
           py::arg("seed"))
      .def(
          "train",
          [](KMeans& self, const Array<float>& vectors, const Array<float>& start,
             std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = matrix(vectors, "vectors");
            const auto first = matrix(start, "start");
            const py::gil_scoped_release release;
            self.train(rows, first, threads, &monitor);
          },
          py::arg("vectors").noconvert(), py::arg("start").noconvert(),
          py::arg("threads"), py::arg("progress"))
      .def(
          "assign",
          [](const KMeans& self, const Array<float>& vectors, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = matrix(vectors, "vectors");
            Array<std::int64_t> ids(static_cast<py::ssize_t>(rows.rows));
            Array<float> distances(static_cast<py::ssize_t>(rows.rows));
            std::int64_t* to_ids = ids.mutable_data();
            float* to_distances = distances.mutable_data();
            {
              const py::gil_scoped_release release;
              self.assign(rows, to_ids, to_distances, threads, &monitor);
            }
            return py::make_tuple(ids, distances);
          },
          py::arg("vectors").noconvert(), py::arg("threads"), py::arg("progress"))
      .def_property_readonly("centroids",
                             [](const KMeans& self) {
                               const auto c = self.centroids();
                               return Array<float>({c.rows, c.cols}, c.data);
                             })
      .def_property_readonly("objectives",
                             [](const KMeans& self) {
                               return copied(self.objectives().data(),
                                             self.objectives().size());
                             })
      .def_property_readonly("trained", &KMeans::trained)
      .def_property_readonly("dim", &KMeans::dim)
      .def_property_readonly("restart", &KMeans::restart)
      .def_property_readonly("n_trained", &KMeans::n_trained)
      .def_property_readonly("n_clusters",
                             [](const KMeans& s) { return s.options().n_clusters; })
      .def_property_readonly("n_iterations",
                             [](const KMeans& s) { return s.options().n_iterations; })
      .def_property_readonly("n_restarts",
                             [](const KMeans& s) { return s.options().n_restarts; })
      .def_property_readonly("sample_limit",
                             [](const KMeans& s) { return s.options().sample_limit; })
      .def_property_readonly(
          "start", [](const KMeans& s) { return name_of_start(s.options().start); })
      .def_property_readonly("spherical",
                             [](const KMeans& s) { return s.options().spherical; })
      .def_property_readonly("tolerance",
                             [](const KMeans& s) { return s.options().tolerance; })
      .def_property_readonly("seed", [](const KMeans& s) { return s.options().seed; });
  bind_persistence(kmeans, "kmeans");
}

void bind_steps(py::module_& m) {
  m.def(
      "random_bits",
      [](std::uint64_t seed, std::uint64_t stream, const Array<std::uint64_t>& at) {
        const Random random(seed, stream);
        Array<std::uint64_t> out(at.size());
        std::uint64_t* to = out.mutable_data();
        std::transform(at.data(), at.data() + at.size(), to,
                       [&](std::uint64_t i) { return random.bits(i); });
        return out;
      },
      py::arg("seed"), py::arg("stream"), py::arg("at").noconvert(),
      "Random(seed, stream).bits(at), for tests.");
  m.def(
      "move_centroids",
      [](const Array<float>& vectors, const Array<std::uint32_t>& cells,
         const Array<float>& centroids, bool spherical) {
        const auto rows = matrix(vectors, "vectors");
        const auto old = matrix(centroids, "centroids");
        if (static_cast<std::size_t>(cells.size()) != rows.rows ||
            old.cols != rows.cols) {
          throw InvalidArgument("vectors, cells and centroids differ in shape");
        }
        Array<float> out({old.rows, old.cols});
        codec::move_centroids(rows, cells.data(), old, spherical, 1,
                              out.mutable_data());
        return out;
      },
      py::arg("vectors").noconvert(), py::arg("cells").noconvert(),
      py::arg("centroids").noconvert(), py::arg("spherical"),
      "One centroid update of k-means, for tests; cells must be below the count.");
}

}  // namespace

void bind_codec(py::module_& m) {
  bind_steps(m);
  bind_kmeans(m);
}

}  // namespace annx::bindings
