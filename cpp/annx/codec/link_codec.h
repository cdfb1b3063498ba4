// SPDX-License-Identifier: Apache-2.0
// 4-bit codes of the links of a graph: from them the distances from a query to all
// neighbours of a node follow at once, without reading a neighbour's row.
//
// For a link from row y to row x, r = x - y, and a query q whose key for y is known,
//     l2:  |q - x|^2 = |q - y|^2 + |r|^2 - 2 <q - y, r>
//     ip:    -<q, x> = -<q, y> - <q, r>
// where only <., r> needs the code, and its error is in proportion to |r|, which is
// short, rather than to |x| (node-relative codes: Gou, Gao, Xu and Long, "SymphonyQG",
// 2025).
//
// The code of r. Coordinates z_k = <v_k, r>, scaled to length 1 in all, along axes v_k:
// up to kDenseDim dimensions the principal axes of the differences, above that those of
// a random rotation (rotation.h), which costs O(d log d). Axes are cut into parts of 1
// to 16 of them, and each part is replaced by the nearest of 16 levels trained for it:
// 4 bits. Principal axes are cut so that the distortion is least (dynamic programming
// over contiguous parts, by the distortion of a Gaussian source at 4 bits): strong axes
// in short parts, weak ones in long parts or, the weakest, in none. Rotated axes are
// all alike: parts are as wide as the error asked for allows.
//
// Then r ~ f sum_k level_k v_k with f such that r's inner product with itself comes out
// right: <q - y, r> is exact in the direction of r and has a random error across it
// (RaBitQ's estimator: Gao and Long, 2024). With the f that fits best instead,
// neighbours near q, which lie in its direction, would look too far. So
//     <q - c, r> ~ f sum_parts table_part[code],
// one table for all nodes (c is the mean of the rows). Tables are rounded to 7 bits, so
// that two entries add up in a byte; see LevelTables and LinkScan in kernels/table.h.
// What does not depend on q is kept beside each link in two float16: `offset` and
// `scale`, so that key(x) ~ key(y) + gain (offset + scale <tables, code>).
//
// The standard deviation of the error is about |q - y| |r| sqrt(D / (1 - D) / a) for a
// axes and a distortion D.
//
// Costs: training O(s d^2) for a sample of s differences; a query O(d a) 8-bit products
// or O(d log d); coding a link O(16 a); estimating a link O(parts).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/codec/level_panels.h"
#include "annx/codec/rotation.h"
#include "annx/kernels/table.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

class LinkCodec {
 public:
  struct Options {
    // ip: keys are inner products, not distances.
    bool products = false;
    // Parts at most; fewer where `error` can be met. Whole steps of kLinkPartsStep.
    std::size_t most_parts = 64;
    // The standard deviation of <u, r> wanted, for unit vectors u and r.
    double error = 0.03;
    std::uint64_t seed = 0;
  };

  // Up to here principal axes, above a random rotation.
  static constexpr std::size_t kDenseDim = 256;
  // Least number of differences to learn from.
  static constexpr std::size_t kLeastSample = 1024;

  // Learns from a sample of differences between linked rows, none of them zero, and the
  // mean of the rows. Throws InvalidArgument if there are fewer than kLeastSample.
  LinkCodec(MatrixView<float> differences, std::vector<float> mean,
            const Options& options, std::size_t threads);

  std::size_t dim() const { return dim_; }
  std::size_t axes() const { return levels_.size() / kernels::kLinkLevels; }
  std::size_t parts() const { return widths_.size(); }
  bool products() const { return products_; }
  // What training expects the standard deviation of Options::error to be.
  double expected_error() const { return expected_error_; }
  std::size_t memory_bytes() const;

  // For inspection, in the notation above: v [axes][dim], the number of axes of each
  // part, levels [axis][16], c.
  std::vector<float> axes_matrix() const;
  const std::vector<std::uint8_t>& widths() const { return widths_; }
  const std::vector<float>& levels() const { return levels_; }
  const std::vector<float>& mean() const { return mean_; }
  // What offsets and scales are kept as multiples of, so that float16 holds them with
  // all its digits.
  float offset_unit() const { return offset_unit_; }
  float scale_unit() const { return scale_unit_; }

  // <v_k, row - c> for all axes; `scratch` is memory to reuse from row to row.
  void project(const float* row, std::vector<float>& scratch, float* out) const;

  // Codes the links of one row. Reusable; must not outlive the codec and the row.
  class Encoder {
   public:
    // The row, projected.
    void set(const LinkCodec& codec, const float* from);
    // Codes a group of links to `count` <= kLinkGroup others, projected; `squares`
    // holds |r|^2 (for ip it is not read). Writes a whole group of codes, and offsets
    // and scales as float32 (they are kept as float16).
    void encode(const float* const* to, const float* squares, std::size_t count,
                std::uint8_t* codes, float* offsets, float* scales);

   private:
    const LinkCodec* codec_ = nullptr;
    const float* from_ = nullptr;
    std::vector<float> products_;  // of the row and each level
    std::vector<float> differences_;
  };

  // A query, ready to estimate with. Reusable; must not outlive the codec.
  class Query {
   public:
    // `gain`: how much the keys to be estimated grow when |q - x|^2 (ip: -<q, x>) grows
    // by one.
    void set(const LinkCodec& codec, const float* vector, float gain);
    const kernels::LinkQuery& view() const { return view_; }

   private:
    kernels::LinkQuery view_{};
    std::vector<float> centred_;
    std::vector<std::byte> bytes_;
    std::vector<std::int32_t> products_;
    std::vector<float> coordinates_;
    LevelPanels::Tables tables_;
  };

  void save_to(storage::FileWriter& file) const;
  static LinkCodec load_from(const storage::FileReader& file, std::size_t dim);

 private:
  LinkCodec() = default;
  friend class Encoder;
  friend class Query;
  void derive();
  void transform(const float* x, float* out) const;

  std::size_t dim_ = 0;
  bool products_ = false;
  double expected_error_ = 0;
  float offset_unit_ = 1;
  float scale_unit_ = 1;
  std::uint64_t seed_ = 0;   // of the rotation
  std::vector<float> axes_;  // [axes][dim]; empty with a rotation
  std::vector<std::uint8_t> widths_;
  std::vector<float> levels_;
  std::vector<float> mean_;

  // Derived from the above.
  std::vector<float> halves_;           // [part][16]: half the square of a level
  std::vector<std::byte> narrow_axes_;  // axes_ in 8 bits, [axes][narrow_stride_]
  std::vector<float> narrow_steps_;     // [axes]: their unit
  std::size_t narrow_stride_ = 0;
  LevelPanels panels_;
  std::optional<RandomRotation> rotation_;
};

}  // namespace annx::codec
