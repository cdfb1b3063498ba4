// SPDX-License-Identifier: Apache-2.0
// Rows as 8-bit numbers on one grid for all dimensions, so that distances between rows
// are those of whole numbers but for a factor, and the kernels of 8-bit rows serve:
//     R (x - centre) ~ step 2^e u,   u in [-128, 127],
//     |x - x'|^2 ~ (step 2^e)^2 |u - u'|^2   where both rows have the same e.
// R is a random rotation (rotation.h) or none, whichever lets the step be smaller: it
// spreads what one dimension has too much of over all. (The 8-bit codes of
// grid_codec.h have a step for each coordinate, which makes them finer where those
// differ, and leaves products with a weighted query for a kernel, but no distances.)
//
// What is learnt, from up to kSample rows:
//   centre  without R the middle of each dimension's range or its median, whichever
//           gives the smaller step; with R the median.
//   step    such that the largest coordinate of all is 127 steps; where that is more
//           than twice what it is for all but kWide of the rows, those are left out.
//           From few rows, a quarter more.
// If every coordinate is a whole multiple of a power of two (whole numbers, say) and
// they span at most 255 of it, that is the step, there is no R, and such rows are kept
// exactly.
//
// e is 0 for rows that fit the grid. A row outside has the least e > 0 with which it
// fits: a grid of its own, 2^e times as coarse. So every row of finite numbers can be
// kept, and each coordinate y = R (x - centre) is off by at most half a step or, of a
// row with e > 0, by 1/126 of the largest |y| of the row.
//
// O(d log d) a row with R, else O(d). Learning takes two passes. Thread safety: const
// members may run together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "annx/codec/rotation.h"
#include "annx/storage/file.h"

namespace annx::codec {

// The whole numbers of units nearest to `n` numbers, from -128 to 127, all 0 where the
// unit is 0; NaN, which damaged files may bring, becomes -128.
void round_to_bytes(const float* in, std::size_t n, float unit, std::int8_t* out);

class RowGrid {
 public:
  // Rows that are looked at, evenly.
  static constexpr std::size_t kSample = 65536;

  // Learns from `count` >= 1 rows; get(i, out) writes the i-th, `dim` finite numbers.
  // `turn`: whether there may be a rotation; `seed` is its.
  RowGrid(std::size_t dim, std::size_t count,
          const std::function<void(std::size_t, float*)>& get, bool turn,
          std::uint64_t seed);

  bool turned() const { return rotation_ != nullptr; }
  const std::vector<float>& centre() const { return centre_; }
  // R centre.
  const std::vector<float>& turned_centre() const { return turned_centre_; }
  // step 2^e.
  float step(std::uint8_t e) const;

  // x <- R x, and x <- R (x - centre).
  void turn(float* x) const;
  void place(float* x) const;
  // The e of R (x - centre), and its code.
  std::uint8_t exponent(const float* placed) const;
  void encode(const float* placed, std::uint8_t e, std::int8_t* code) const;
  // The row that a code stands for; writes `dim` numbers.
  void decode(const std::int8_t* code, std::uint8_t e, float* out) const;

  std::size_t memory_bytes() const;
  void save_to(storage::FileWriter& file) const;
  static RowGrid load_from(const storage::FileReader& file, std::size_t dim);

 private:
  explicit RowGrid(std::size_t dim) : dim_(dim) {}
  void set_rotation(std::uint64_t seed);

  std::size_t dim_;
  std::uint64_t seed_ = 0;
  float step_ = 1;
  std::vector<float> centre_;
  std::vector<float> turned_centre_;
  std::unique_ptr<RandomRotation> rotation_;  // null: none
};

}  // namespace annx::codec
