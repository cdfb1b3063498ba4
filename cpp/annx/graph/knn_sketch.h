// SPDX-License-Identifier: Apache-2.0
// Short stand-ins of vectors, whose distances never exceed those of the vectors: what
// all-pairs search looks at before it looks at whole vectors.
//
// z = (Q (x - c), |x - c - Q^T Q (x - c)|) for m orthonormal rows Q that span most of
// the variance: by Pythagoras and the triangle inequality |z - z'| <= |x - x'|. Q comes
// from subspace iteration on a sample (Rutishauser, 1969; any orthonormal Q is right, a
// good one is quick). Where no short Q holds most of the variance, or the vectors are
// short already, z = x - c. (After the partial distances with remaining norms of, for
// example, Cherng and Lo, 2001.)
//
// Rounding. With u = 2^-24 and S^2 = (|z| + |z'|)^2 <= 2 (|z|^2 + |z'|^2), the tiles'
// value  v = -2 <z, z'> + (share + share'), share = |z|^2 (1 - a), obeys
//     v <= |x - x'|^2 (1 + 2 theta)
// where a = (2 (width + 2) + 16) u covers the tile's chain, the squares and the
// centring, as search/tiles.h derives; a projection adds to the vector an error of at
// most eta |x - c|, eta = (d + 16) sqrt(m) u, which moves D^2 by at most
// 2 D eta S + eta^2 S^2 <= theta D^2 + 2 eta^2 S^2 / theta: 4.1 eta^2 / theta more for
// a, and theta = 2^-10 (0 without a projection).
//
// Cost: O(n d m) multiply-adds in register tiles. Memory: n * width floats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/aligned_buffer.h"
#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"

namespace annx::graph {

// Vectors whose squared Euclidean distances order neighbours.
class KnnSource {
 public:
  virtual ~KnnSource() = default;
  virtual std::size_t count() const = 0;
  virtual std::size_t dim() const = 0;
  // Writes dim() floats. Called by many threads at once.
  virtual void vector(std::uint32_t slot, float* out) const = 0;
  // All of them, where they lie in memory as `vector` gives them; else no data.
  virtual MatrixView<float> plain() const { return {}; }
};

struct Sketch {
  std::size_t width = 0;
  bool projected = false;
  AlignedBuffer rows;         // count x width floats
  std::vector<float> shares;  // see above
  std::vector<float> rests;   // |z|^2 - share
  float widen = 1;            // 1 + 2 theta, with some room
  // The centre and Q, by which another vector could be sketched.
  std::vector<float> centre;

  const float* row(std::size_t i) const {
    return reinterpret_cast<const float*>(rows.data()) + i * width;
  }
};

// Of all vectors of the source, in its order. Returns a sketch of width 0 where numbers
// are too large for tiles. The same for any number of threads.
// `rigorous`: whether the bound must hold, or may fail by rounding for a few pairs.
Sketch make_sketch(const KnnSource& source, bool rigorous, std::uint64_t seed,
                   std::size_t threads, Monitor* monitor);

}  // namespace annx::graph
