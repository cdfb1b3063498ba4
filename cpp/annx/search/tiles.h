// SPDX-License-Identifier: Apache-2.0
// The shortlist of exact search: register tiles over a pass of queries and a block of
// rows, and the bound that makes leaving a row out safe.
//
// l2 (and cosine, on vectors scaled to length 1, with 2 (1 - cos) = |q - x|^2):
//   q' = q - c, x' = x - c, each element rounded once, c about the mean of the rows, so
//   that far from the origin no digits are lost. A tile computes, from the bias b,
//   v = b - 2 <q', x'>, b = |x'|^2 (1 - a). With u = 2^-24, g = n u / (1 - n u) for
//   n = dim + 2 (Higham, 2002, section 3.1), Q = |q'|^2, X = |x'|^2:
//     |v - (b - 2 <q', x'>)| <= g (|b| + 2 sum |q' x'|) <= g (2.1 X + Q)
//     | |q - x|^2 - |q' - x'|^2 | <= 4.1 u (Q + X)     (the rounding of the centring)
//   so with a = 4 g + 8 u and e = (2 g + 8 u) Q the distance D obeys
//     v <= D - Q + e <= v + 2.2 a X + 2 e.
// ip: q scaled by a power of two to |q| <= 1, v = b - <q, x - c>, b = -(a r + m) with
//   r = |x'|, a = 2 g + 4 u and m = h (|c| + r) for the error h of the canonical
//   kernel:
//     v <= canonical + <q, c> <= v + 2.2 (a r + m).
// The k-th smallest upper bound is an upper bound of the k-th smallest distance, so
// rows whose v lies above it (widened by the canonical kernel's own error) are not
// among the k nearest. What remains, a few more than k, is settled by canonical
// distances.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/search/canonical.h"
#include "annx/search/topk.h"
#include "annx/storage/panels.h"

namespace annx::search {

// The next float above one that is not a NaN. (The library's takes the long way round,
// and this is asked for at every row that a tile lets through.)
inline float next_above(float x) {
  if (x == std::numeric_limits<float>::infinity()) return x;
  if (x == 0.0f) return std::numeric_limits<float>::denorm_min();
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>(x > 0.0f ? bits + 1 : bits - 1);
}

// Whether tiles can serve a metric and type.
bool tiles_serve(Metric metric, DType dtype);

// What a pass of queries needs to know; read by all threads.
class TilePass {
 public:
  // Packs queries (float32 or the rows' bytes). `set` is copied, queries borrowed.
  TilePass(const RowSet& set, RowsView queries, const std::vector<float>& centre);

  // A centre: the mean of a sample of the rows (zeros where there are none).
  static std::vector<float> centre_of(const RowSet& set);

  std::size_t count() const { return queries_.count(); }
  std::size_t padded() const { return queries_.padded(); }
  const RowSet& set() const { return set_; }
  const storage::Panels& panels() const { return queries_; }
  const std::vector<float>& centre() const { return centre_; }
  // Queries whose numbers are too large for the bounds: they never hit, and the caller
  // searches for them by canonical distances.
  bool direct(std::size_t query) const { return direct_[query] != 0; }

  // The least limit under which every row with a canonical key <= key is a hit.
  float limit(std::size_t query, double key) const;
  // An upper bound, on the scale of v, for a row with sum `low` and this `gap`.
  float high(std::size_t query, float low, float gap) const;
  // A v and a gap for a zero row under cosine, whose distance is 1.
  struct Bounds {
    float low;
    float gap;
  };
  Bounds zero_row(std::size_t query) const;

 private:
  friend class TileRows;
  RowSet set_;
  bool product_;
  double a_ = 0;  // see above
  double g_ = 0;
  double h_ = 0;      // relative error of a canonical distance, doubled
  double slack_ = 0;  // absolute error, on the scale of v
  double centre_norm_ = 0;
  std::vector<float> centre_;
  storage::Panels queries_;
  std::vector<double> square_;  // Q
  std::vector<double> error_;   // e
  std::vector<double> unit_;    // ip: the power of two
  std::vector<double> shift_;   // ip: <q, c>, with its error
  std::vector<char> direct_;
};

// Packed rows and the running of tiles over them; one for each thread.
class TileRows {
 public:
  explicit TileRows(const TilePass& pass);

  // Rows that a block should hold: about 512 KiB of packed rows.
  static std::size_t block_rows(std::size_t dim);

  // Packs the set's entries [begin, begin + count). False where their numbers are too
  // large for the bounds: then run() must not be called, and the caller settles the
  // block by canonical distances.
  bool load(std::size_t begin, std::size_t count);

  // Calls hit(query, entry, low, gap) for every query and entry with v < limits[query].
  // `limits` (padded() floats) may be lowered meanwhile.
  template <class Hit>
  void run(const float* limits, Hit&& hit);

 private:
  const TilePass& pass_;
  const kernels::TileKernels& tile_;
  std::size_t begin_ = 0;
  std::size_t count_ = 0;
  storage::Panels rows_;
  std::vector<float> wide_;
  std::vector<float> scales_;
  std::vector<float> bias_;
  std::vector<float> gap_;
  std::vector<std::uint32_t> zeros_;  // zero rows of the block, under cosine
};

template <class Hit>
void TileRows::run(const float* limits, Hit&& hit) {
  const storage::Panels& queries = pass_.panels();
  const std::size_t dim = pass_.set().dim;
  // Query panels that stay in the second cache while the rows pass by.
  constexpr std::size_t kQueryBytes = std::size_t{192} << 10;
  const std::size_t group =
      std::max<std::size_t>(1, kQueryBytes / (queries.width() * dim * sizeof(float)));
  float sums[kernels::kMaxTileQueries * kernels::kMaxTileRows];
  std::uint32_t hits[kernels::kMaxTileQueries];
  for (std::size_t first = 0; first < queries.panels(); first += group) {
    const std::size_t last = std::min(first + group, queries.panels());
    for (std::size_t p = 0; p < rows_.panels(); ++p) {
      std::size_t g = first;
      while ((g = tile_.scan(queries.data(), g, last, rows_.panel(p), dim,
                             bias_.data() + p * tile_.rows, limits, sums, hits)) <
             last) {
        for (std::size_t i = 0; i < tile_.queries; ++i) {
          for (std::uint32_t bits = hits[i]; bits != 0; bits &= bits - 1) {
            const auto j = static_cast<std::size_t>(std::countr_zero(bits));
            const std::size_t row = p * tile_.rows + j;
            hit(g * tile_.queries + i, static_cast<std::uint32_t>(begin_ + row),
                sums[i * tile_.rows + j], gap_[row]);
          }
        }
        ++g;
      }
    }
  }
  for (const std::uint32_t entry : zeros_) {
    for (std::size_t query = 0; query < queries.count(); ++query) {
      const TilePass::Bounds zero = pass_.zero_row(query);
      if (zero.low < limits[query]) hit(query, entry, zero.low, zero.gap);
    }
  }
}

}  // namespace annx::search
