// SPDX-License-Identifier: Apache-2.0
// All-pairs search: the k nearest neighbours of every vector among the others.
//
// Vectors are sketched (knn_sketch.h), sorted into cells (knn_cells.h), and pairs of
// cells meet in register tiles, the likeliest first. A product is computed once and
// judged from both sides, against the k-th best that each side has so far; what passes
// is settled by the distance of the whole vectors (or, where sketches are whole, by the
// tile's own value unless that may have cancelled). The exact neighbours of a sample
// say beforehand which share of all edges every further pair of cells brings, so the
// work stops where the recall asked for is reached; asking for all of it makes every
// pair meet.
//
// Where many cells would have to meet, a part of them does, and then neighbours of
// neighbours do: Dong, Charikar and Li, "Efficient k-nearest neighbor graph
// construction for generic similarity measures", 2011, each vector's neighbours in one
// block of tiles.
//
// What a vector keeps is the best k of all that it met by (key, slot), and what is left
// out unseen is bounded away from that, so the result depends on no order and hence not
// on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"
#include "annx/codec/row_codec.h"
#include "annx/graph/knn_sketch.h"

namespace annx::graph {

struct KnnOptions {
  std::size_t k = 15;
  double recall = 0.95;  // of edges; 1: every pair meets
  std::uint64_t seed = 0;
  std::size_t threads = 1;
};

struct KnnGraph {
  std::size_t k = 0;
  // count x k, nearest first, ties by slot: slots (kNoSlot past the last) and squared
  // distances (+inf there) between the vectors of the source, by the canonical kernel.
  // With recall 1 nothing that was left out has a squared distance below the last
  // one's, but for rounding.
  std::vector<std::uint32_t> slots;
  std::vector<float> keys;
  double recall = 0;  // as estimated from the sample
};

// The rows of a codec as vectors: those of unit length under cosine. Not for l1, and
// for ip the neighbours are those of l2.
class CodecVectors final : public KnnSource {
 public:
  explicit CodecVectors(const codec::RowCodec& rows) : rows_(rows) {}
  std::size_t count() const override { return rows_.size(); }
  std::size_t dim() const override { return rows_.dim(); }
  void vector(std::uint32_t slot, float* out) const override {
    rows_.vector(slot, out);
  }

 private:
  const codec::RowCodec& rows_;
};

// Empty where numbers are too large for tiles (squares from 1e30 on), or where there
// are 2^31 vectors or more. Memory: 4 (width + 3) + 8 (k + 4) bytes a vector, where
// width is at most half the dimension, or all of a short one; twice the width while
// sorting; and 4 dim more where sketches are short and the source is not plain.
KnnGraph build_knn(const KnnSource& source, const KnnOptions& options,
                   Monitor* monitor);

}  // namespace annx::graph
