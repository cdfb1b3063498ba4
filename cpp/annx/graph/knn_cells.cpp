// SPDX-License-Identifier: Apache-2.0
#include "annx/graph/knn_cells.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "annx/base/groups.h"
#include "annx/codec/centroid_blocks.h"
#include "annx/codec/kmeans.h"
#include "annx/kernels/dispatch.h"

namespace annx::graph {
namespace {

constexpr std::size_t kIterations = 6;
constexpr std::size_t kPointsPerCentroid = 48;

// The cell of each row among `count` of them.
std::vector<std::uint32_t> divide(MatrixView<float> rows, std::size_t count,
                                  std::uint64_t seed, std::size_t threads,
                                  Monitor* monitor) {
  std::vector<std::uint32_t> cells(rows.rows, 0);
  if (count <= 1) return cells;
  const codec::KMeansResult found =
      codec::kmeans(rows, {.n_clusters = count,
                           .n_iterations = kIterations,
                           .sample_limit = count * kPointsPerCentroid,
                           .seed = seed,
                           .threads = threads});
  const codec::CentroidBlocks blocks(
      {found.centroids.data(), count, rows.cols, rows.cols});
  blocks.nearest(rows, cells.data(), nullptr, threads, monitor);
  return cells;
}

}  // namespace

KnnCells make_cells(const Sketch& sketch, std::size_t n, std::size_t size,
                    std::uint64_t seed, std::size_t threads, Monitor* monitor) {
  const auto parts = [&](std::size_t count) {
    return std::max<std::size_t>(1, (count + size / 2) / size);
  };
  const std::size_t wide = sketch.width;
  const auto top =
      static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(parts(n)))));
  Groups large(divide({sketch.row(0), n, wide, wide}, top, seed, threads, monitor),
               top);
  const std::vector<std::size_t>& begins = large.begins;
  KnnCells cells;
  cells.order = std::move(large.items);
  // The sizes of the small cells of each large one, which are sorted in place.
  std::vector<std::vector<std::uint32_t>> sizes(top);
  parallel_for(top, threads, 1, [&](std::size_t first, std::size_t last, std::size_t) {
    std::vector<float> rows;
    for (std::size_t t = first; t < last; ++t) {
      const std::size_t count = begins[t + 1] - begins[t];
      if (count == 0) continue;
      std::uint32_t* order = cells.order.data() + begins[t];
      rows.resize(count * wide);
      for (std::size_t i = 0; i < count; ++i) {
        std::copy_n(sketch.row(order[i]), wide, rows.data() + i * wide);
      }
      const std::size_t small = parts(count);
      auto [starts, sorted] = Groups(
          divide({rows.data(), count, wide, wide}, small, seed + 1 + t, 1, nullptr),
          small);
      for (std::uint32_t& i : sorted) i = order[i];
      std::copy(sorted.begin(), sorted.end(), order);
      for (std::size_t c = 0; c < small; ++c) {
        // Vectors that k-means cannot part (duplicates) are parted anyhow.
        for (std::size_t left = starts[c + 1] - starts[c]; left != 0;) {
          const std::size_t part = left > 4 * size ? size : left;
          sizes[t].push_back(static_cast<std::uint32_t>(part));
          left -= part;
        }
      }
    }
  });
  cells.begins.push_back(0);
  for (const auto& of : sizes) {
    for (const std::uint32_t count : of) {
      cells.begins.push_back(cells.begins.back() + count);
    }
  }
  return cells;
}

std::vector<std::uint32_t> nearest_cells(const std::vector<float>& means,
                                         std::size_t count, std::size_t nearest,
                                         std::size_t threads) {
  const std::size_t wide = means.size() / count;
  std::vector<std::uint32_t> ranks(count * nearest);
  parallel_for(
      count, threads, 16, [&](std::size_t first, std::size_t last, std::size_t) {
        std::vector<float> keys(count);
        std::vector<std::pair<float, std::uint32_t>> order;
        for (std::size_t c = first; c < last; ++c) {
          kernels::active().float_rows[kernels::kOpL2][0](
              means.data() + c * wide, reinterpret_cast<const std::byte*>(means.data()),
              wide * sizeof(float), count, wide, keys.data());
          order.clear();
          for (std::uint32_t b = 0; b < count; ++b) {
            if (b != c) order.push_back({keys[b], b});
          }
          const auto end = order.begin() + static_cast<std::ptrdiff_t>(nearest);
          if (end != order.end()) {
            std::nth_element(order.begin(), end, order.end());
          }
          std::sort(order.begin(), end);
          for (std::size_t r = 0; r < nearest; ++r) {
            ranks[c * nearest + r] = order[r].second;
          }
        }
      });
  return ranks;
}

std::vector<CellPair> rank_pairs(const std::vector<std::uint32_t>& ranks,
                                 std::size_t count) {
  std::vector<CellPair> pairs;
  if (count < 2) return pairs;
  std::vector<std::uint32_t> rank_of(count * count);
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    const std::size_t a = i / (count - 1);
    rank_of[a * count + ranks[i]] = static_cast<std::uint32_t>(i % (count - 1));
  }
  for (std::uint32_t a = 0; a < count; ++a) {
    for (std::uint32_t b = a + 1; b < count; ++b) {
      pairs.push_back({rank_of[a * count + b] + rank_of[b * count + a], a, b});
    }
  }
  std::sort(pairs.begin(), pairs.end(), [](const CellPair& x, const CellPair& y) {
    return std::tuple(x.rank, x.a, x.b) < std::tuple(y.rank, y.a, y.b);
  });
  return pairs;
}

}  // namespace annx::graph
