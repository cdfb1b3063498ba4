// SPDX-License-Identifier: Apache-2.0
// All-pairs search: the k nearest neighbours of every vector among the others.
//
// Vectors are sketched (knn_sketch.h) and sorted into cells (knn_cells.h). Those of a
// cell meet in register tiles, and then vectors visit other cells: those whose mean is
// hardly farther than that of their own (as inverted files are searched: Jegou, Douze
// and Schmid, 2011, section IV). A product is computed once and judged from both sides,
// against the k-th best that each side has so far. The exact neighbours of a sample say
// beforehand how far vectors must go for the recall asked for; recall 1 makes every
// pair of cells meet, the likeliest first. Where sketches are short they estimate
// distances, more neighbours are kept than are wanted, and whole vectors settle them at
// the end; with recall 1 sketches only bound distances, and whole vectors settle every
// pair.
//
// What a vector keeps is the best k of all that it met by (key, slot), and what is left
// out unseen is bounded away from that, so the result depends on no order and hence not
// on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "annx/base/aligned_buffer.h"
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
  // Whether whole vectors settle what sketches estimate. If not, the neighbours are
  // those by the estimates, in that order, and without keys.
  bool settled = true;
};

struct KnnGraph {
  std::size_t k = 0;
  // count x k slots, nearest first, ties by slot, kNoSlot past the last. Settled lists
  // lie by slot; others, which are long, where `places` says: that saves a copy.
  AlignedBuffer slots;
  std::vector<std::uint32_t> places;  // [slot] of its list, if not empty
  // Squared distances between the vectors of the source by the canonical kernel (+inf
  // past the last), of settled lists. With recall 1 nothing that was left out has one
  // below the last one's, but for rounding.
  std::vector<float> keys;
  // All slots, such that near vectors mostly lie near one another.
  std::vector<std::uint32_t> order;
  double recall = 0;  // as estimated from the sample

  std::span<const std::uint32_t> all() const {
    return {reinterpret_cast<const std::uint32_t*>(slots.data()),
            slots.size() / sizeof(std::uint32_t)};
  }
  std::span<const std::uint32_t> list(std::size_t slot) const {
    return all().subspan((places.empty() ? slot : places[slot]) * k, k);
  }
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
// are 2^31 vectors or more. Memory: 4 (width + 9) bytes a vector, of which unsettled
// half the width stays once cells are known; a list (near_lists.h) of k, or of up to
// four times k where projected sketches are settled; and some visits. Settled, 8 k for
// the result, and with recall 1 4 dim more where the source is not plain. width is at
// most half the dimension if sketches are projected, or else all of it.
KnnGraph build_knn(const KnnSource& source, const KnnOptions& options,
                   Monitor* monitor);

}  // namespace annx::graph
