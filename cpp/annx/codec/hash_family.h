// SPDX-License-Identifier: Apache-2.0
// Locality-sensitive hash functions: near vectors get equal values more often than far
// ones do.
//
//   cosine   [a x > 0], a normal; equal with probability 1 - angle / pi (Charikar,
//            2002)
//   l2       floor((a x + b) / width), a normal, b uniform (Datar, Immorlica, Indyk
//            and Mirrokni, 2004)
//   l1       the same, a Cauchy
//   hamming  one bit of x; 1 - distance / dim (Indyk and Motwani, 1998)
//   jaccard  the bit of x that comes first in a random order; 1 - distance (Broder,
//            1997)
//
// A group of functions makes one key: 32 bits of the mixed sum of factor * value over
// its functions, so the key of a neighbouring bucket follows from the sum by addition.
// For multi-probe search (Lv, Josephson, Wang, Charikar and Li, 2007) every function
// also names other values and what each costs: the square of the distance to the
// boundary between, or 1 where functions have no such distance.
//
// Values depend on the seed and on canonical inner products, so they are the same on
// every instruction set. Projections are saved: mathematical functions of another
// machine could round them otherwise. Reading is thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/types.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

class HashFamily {
 public:
  static constexpr std::size_t kMaxHashes = 24;  // of a group
  static constexpr std::size_t kMaxMoves = 2 * kMaxHashes;

  struct Options {
    Metric metric = Metric::kL2;
    DType dtype = DType::kFloat32;
    std::size_t dim = 1;
    std::size_t groups = 1;
    std::size_t hashes = 1;  // of a group
    double width = 0;        // l2 and l1: 0 learns it
    std::uint64_t seed = 0;
  };

  // Another value of a function of the group.
  struct Move {
    float cost;
    std::uint32_t function;  // within the group
    std::uint64_t add;       // to the group's sum
  };

  HashFamily() = default;
  // Under l2 and l1 without a width: that of the projections of at most 1,024 of
  // `sample`, as the standard deviation of a normal distribution with their quartiles.
  HashFamily(const Options& options, RowsView sample);

  const Options& options() const { return options_; }
  std::size_t functions() const { return options_.groups * options_.hashes; }
  std::size_t memory_bytes() const;

  // Work space of one thread.
  struct Space {
    std::vector<float> wide;
    std::vector<float> sums;
    std::vector<std::int32_t> values;
    std::vector<std::int32_t> others;  // jaccard: the bit that comes second, or dim
    std::vector<float> places;         // l2, l1: where in its cell; cosine: the product
  };
  // Fills space.values (functions()) and what moves() reads. `row` is float32 for a
  // query over floats if `query`, else of the rows' type.
  void hash(const std::byte* row, bool query, Space& space) const;
  std::uint64_t sum(std::size_t group, const Space& space) const;
  static std::uint32_t key(std::uint64_t sum);
  // The moves of a group, cheapest first; returns how many (at most kMaxMoves).
  std::size_t moves(std::size_t group, const Space& space, Move* out) const;

  // Throws FormatError.
  void save_to(storage::FileWriter& writer) const;
  static HashFamily load_from(const storage::FileReader& reader, Options options);

 private:
  bool projects() const { return options_.metric == Metric::kCosine || cells(); }
  bool cells() const {
    return options_.metric == Metric::kL2 || options_.metric == Metric::kL1;
  }
  void draw();
  void project(const std::byte* row, bool query, Space& space) const;

  Options options_;
  storage::Array<float> projections_;   // functions x dim
  std::vector<float> offsets_;          // in cells
  std::vector<std::uint32_t> sampled_;  // hamming: bits
  std::vector<std::uint64_t> factors_;
};

}  // namespace annx::codec
