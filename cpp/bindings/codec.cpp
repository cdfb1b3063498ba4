// SPDX-License-Identifier: Apache-2.0
// k-means and product quantization.
#include "common.h"

#include "annx/codec/centroid_blocks.h"
#include "annx/codec/kmeans.h"

namespace annx::bindings {

void bind_codec(py::module_& m) {
  m.def("kmeans_raw", [](const Array<float>& rows, std::size_t k, std::size_t it,
                         std::uint64_t seed, std::size_t threads, bool pp) {
    codec::KMeansOptions o{.n_clusters = k, .n_iterations = it};
    o.seed = seed;
    o.threads = threads;
    if (pp) o.start = codec::KMeansStart::kPlusPlus;
    codec::KMeansResult r;
    const auto view = matrix(rows, "vectors");
    {
      py::gil_scoped_release nogil;
      r = codec::kmeans(view, o);
    }
    Array<float> c({k, view.cols});
    std::copy(r.centroids.data(), r.centroids.data() + r.centroids.size(),
              c.mutable_data());
    py::list obj;
    for (double d : r.objectives) obj.append(d);
    return py::make_tuple(c, obj);
  });
}

}  // namespace annx::bindings
