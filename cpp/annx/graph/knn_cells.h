// SPDX-License-Identifier: Apache-2.0
// Cells of vectors that lie together, by two levels of k-means on sketches, O(n sqrt(n
// / size)) distances; and which cells lie near which, O((n / size)^2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/parallel.h"
#include "annx/graph/knn_sketch.h"

namespace annx::graph {

struct KnnCells {
  std::vector<std::uint32_t> order;   // [position] the vector's slot
  std::vector<std::uint32_t> begins;  // [cell] its first position; one more at the end
  std::size_t count() const { return begins.size() - 1; }
};

// About `size` vectors a cell, at most four times as many, none empty.
KnnCells make_cells(const Sketch& sketch, std::size_t n, std::size_t size,
                    std::uint64_t seed, std::size_t threads, Monitor* monitor);

// For each cell the `nearest` others whose means are nearest to its own, nearest first.
std::vector<std::uint32_t> nearest_cells(const std::vector<float>& means,
                                         std::size_t count, std::size_t nearest,
                                         std::size_t threads);

struct CellPair {
  std::uint32_t rank;  // the sum of both ranks
  std::uint32_t a;     // below b
  std::uint32_t b;
};

// Every pair of cells, the likeliest first. `ranks` are all from nearest_cells.
std::vector<CellPair> rank_pairs(const std::vector<std::uint32_t>& ranks,
                                 std::size_t count);

}  // namespace annx::graph
