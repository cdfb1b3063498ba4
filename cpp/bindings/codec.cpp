// SPDX-License-Identifier: Apache-2.0
// k-means and product quantization.
#include <algorithm>

#include "annx/base/random.h"
#include "annx/codec/kmeans.h"
#include "annx/codec/product.h"
#include "common.h"
#include "methods.h"

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
  bind_saved(kmeans, "kmeans");
}

const std::uint8_t* codes_of(const codec::ProductQuantizer& self,
                             const Array<std::uint8_t>& codes, const char* argument) {
  const auto view = matrix(codes, argument);
  if (view.cols != self.code_bytes()) {
    throw InvalidArgument(std::string(argument) + " has " + std::to_string(view.cols) +
                          " columns; it must have " +
                          std::to_string(self.code_bytes()));
  }
  return view.data;
}

void bind_product(py::module_& m) {
  using codec::ProductQuantizer;
  py::class_<ProductQuantizer> product(m, "ProductQuantizer");
  product
      .def(py::init([](std::size_t dim, std::size_t n_segments, std::size_t n_bits,
                       std::string_view metric, std::size_t n_iterations,
                       std::size_t sample_limit, std::uint64_t seed) {
             return ProductQuantizer({.dim = dim,
                                      .n_segments = n_segments,
                                      .n_bits = n_bits,
                                      .metric = parse_metric(metric),
                                      .n_iterations = n_iterations,
                                      .sample_limit = sample_limit,
                                      .seed = seed});
           }),
           py::kw_only(), py::arg("dim"), py::arg("n_segments"), py::arg("n_bits"),
           py::arg("metric"), py::arg("n_iterations"), py::arg("sample_limit"),
           py::arg("seed"))
      .def(
          "train",
          [](ProductQuantizer& self, const Array<float>& vectors, std::size_t threads,
             py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = matrix(vectors, "vectors");
            const py::gil_scoped_release release;
            self.train(rows, threads, &monitor);
          },
          py::arg("vectors").noconvert(), py::arg("threads"), py::arg("progress"))
      .def(
          "encode",
          [](const ProductQuantizer& self, const Array<float>& vectors,
             std::size_t threads, py::object progress) {
            PyMonitor monitor(std::move(progress));
            const auto rows = matrix(vectors, "vectors");
            Array<std::uint8_t> codes({rows.rows, self.code_bytes()});
            std::uint8_t* out = codes.mutable_data();
            {
              const py::gil_scoped_release release;
              self.encode(rows, out, threads, &monitor);
            }
            return codes;
          },
          py::arg("vectors").noconvert(), py::arg("threads"), py::arg("progress"))
      .def(
          "decode",
          [](const ProductQuantizer& self, const Array<std::uint8_t>& codes,
             std::size_t threads) {
            const std::uint8_t* from = codes_of(self, codes, "codes");
            const auto count = static_cast<std::size_t>(codes.shape(0));
            Array<float> vectors({count, self.options().dim});
            float* out = vectors.mutable_data();
            {
              const py::gil_scoped_release release;
              self.decode(from, count, out, threads);
            }
            return vectors;
          },
          py::arg("codes").noconvert(), py::arg("threads"))
      .def("symmetric_tables",
           [](const ProductQuantizer& self) {
             Array<float> tables(
                 {self.options().n_segments, self.n_centroids(), self.n_centroids()});
             float* out = tables.mutable_data();
             {
               const py::gil_scoped_release release;
               self.symmetric_tables(out);
             }
             return tables;
           })
      .def(
          "asymmetric_tables",
          [](const ProductQuantizer& self, const Array<float>& queries,
             std::size_t threads) {
            const auto rows = matrix(queries, "queries");
            Array<float> tables(
                {rows.rows, self.options().n_segments, self.n_centroids()});
            float* out = tables.mutable_data();
            {
              const py::gil_scoped_release release;
              self.asymmetric_tables(rows, out, threads);
            }
            return tables;
          },
          py::arg("queries").noconvert(), py::arg("threads"))
      .def(
          "symmetric_distances",
          [](const ProductQuantizer& self, const Array<std::uint8_t>& a,
             const Array<std::uint8_t>& b, std::size_t threads) {
            const std::uint8_t* left = codes_of(self, a, "a");
            const std::uint8_t* right = codes_of(self, b, "b");
            const auto rows = static_cast<std::size_t>(a.shape(0));
            const auto cols = static_cast<std::size_t>(b.shape(0));
            Array<float> distances({rows, cols});
            float* out = distances.mutable_data();
            {
              const py::gil_scoped_release release;
              self.symmetric_distances(left, rows, right, cols, out, threads);
            }
            return distances;
          },
          py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("threads"))
      .def(
          "asymmetric_distances",
          [](const ProductQuantizer& self, const Array<float>& queries,
             const Array<std::uint8_t>& codes, std::size_t threads) {
            const auto rows = matrix(queries, "queries");
            const std::uint8_t* from = codes_of(self, codes, "codes");
            const auto count = static_cast<std::size_t>(codes.shape(0));
            Array<float> distances({rows.rows, count});
            float* out = distances.mutable_data();
            {
              const py::gil_scoped_release release;
              self.asymmetric_distances(rows, from, count, out, threads);
            }
            return distances;
          },
          py::arg("queries").noconvert(), py::arg("codes").noconvert(),
          py::arg("threads"))
      .def(
          "codebook",
          [](const ProductQuantizer& self, std::size_t segment) {
            if (!self.trained()) {
              throw NotTrained("ProductQuantizer is not trained; call train() first");
            }
            if (segment >= self.options().n_segments) {
              throw InvalidArgument("segment is " + std::to_string(segment) +
                                    "; it must be below " +
                                    std::to_string(self.options().n_segments));
            }
            const auto book = self.codebook(segment);
            return Array<float>({book.rows, book.cols}, book.data);
          },
          py::arg("segment"))
      .def_property_readonly("trained", &ProductQuantizer::trained)
      .def_property_readonly("code_bytes", &ProductQuantizer::code_bytes)
      .def_property_readonly("dim",
                             [](const ProductQuantizer& s) { return s.options().dim; })
      .def_property_readonly(
          "n_segments",
          [](const ProductQuantizer& s) { return s.options().n_segments; })
      .def_property_readonly(
          "n_bits", [](const ProductQuantizer& s) { return s.options().n_bits; })
      .def_property_readonly("metric",
                             [](const ProductQuantizer& s) {
                               return std::string(name_of(s.options().metric));
                             })
      .def("starts", [](const ProductQuantizer& s) {
        return copied(s.starts().data(), s.starts().size());
      });
  bind_saved(product, "pq");
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
  bind_product(m);
}

}  // namespace annx::bindings
