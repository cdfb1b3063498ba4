// SPDX-License-Identifier: Apache-2.0
// A random rotation of any dimension in O(d log d): rounds of random signs and Hadamard
// transforms (Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", 2009),
// each round on the first and then on the last 2^k coordinates, 2^k being the largest
// power of two that fits, so that all of them mix. Orthogonal: lengths and inner
// products stay. After it every direction has its energy spread evenly, whatever the
// data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annx::codec {

class RandomRotation {
 public:
  RandomRotation(std::size_t dim, std::uint64_t seed);

  // In place.
  void apply(float* x) const;
  // Takes apply() back, but for rounding.
  void apply_inverse(float* x) const;
  std::size_t memory_bytes() const { return signs_.capacity() * sizeof(float); }

 private:
  std::size_t dim_;
  std::size_t power_;
  std::vector<float> signs_;  // [round][first, last][power_], over sqrt(power_)
};

}  // namespace annx::codec
