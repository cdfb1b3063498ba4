// SPDX-License-Identifier: Apache-2.0
// Short stand-ins of vectors: one bit for each of many directions, set where the vector
// lies beyond the mean along it. The number of bits in which two sketches differ grows
// with the angle between the vectors, seen from the mean (Charikar, 2002), and says
// which of many vectors are worth measuring. Directions are orthogonal in groups of at
// most `dim`, which makes that number vary less (Ji, Li, Yan, Zhang and Tian,
// "Super-bit locality-sensitive hashing", 2012). Under cosine the mean is taken as 0.
//
// O(bits * dim) a vector, and O(bits^2 * dim) once. Reading is thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/types.h"
#include "annx/storage/array.h"
#include "annx/storage/file.h"

namespace annx::codec {

class SignSketch {
 public:
  static constexpr std::size_t kMaxBits = 4096;  // a multiple of 64, as all counts are

  struct Options {
    Metric metric = Metric::kL2;  // of vectors, not of bits
    DType dtype = DType::kFloat32;
    std::size_t dim = 1;
    std::size_t bits = 256;
    std::uint64_t seed = 0;
  };

  SignSketch() = default;
  // The mean is that of at most 1,024 of `sample`.
  SignSketch(const Options& options, RowsView sample);

  std::size_t bits() const { return options_.bits; }
  std::size_t bytes() const { return options_.bits / 8; }
  std::size_t memory_bytes() const {
    return directions_.held_bytes() + limits_.held_bytes();
  }

  // Work space of one thread.
  struct Space {
    std::vector<float> wide;
    std::vector<float> sums;
  };
  // `row` is float32 for a query over floats if `query`, else of the rows' type.
  void write(const std::byte* row, bool query, Space& space, std::uint8_t* out) const;

  // Throws FormatError.
  void save_to(storage::FileWriter& writer) const;
  static SignSketch load_from(const storage::FileReader& reader,
                              const Options& options);

 private:
  Options options_;
  storage::Array<float> directions_;  // bits x dim
  storage::Array<float> limits_;      // the mean's products with them
};

}  // namespace annx::codec
