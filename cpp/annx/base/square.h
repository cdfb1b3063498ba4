// SPDX-License-Identifier: Apache-2.0
// Squared lengths, and which vectors count as zero: alike everywhere.
#pragma once

#include <cstddef>
#include <limits>

namespace annx {

// |x|^2 in float64, in eight sums, which the compiler keeps in registers; 0 where it is
// below the smallest normal float32: such a vector counts as zero.
inline double square_of(const float* x, std::size_t dim) {
  double s[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    for (std::size_t j = 0; j < 8; ++j) {
      const double v = x[i + j];
      s[j] += v * v;
    }
  }
  for (; i < dim; ++i) s[0] += static_cast<double>(x[i]) * x[i];
  const double square =
      ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
  return square < std::numeric_limits<float>::min() ? 0.0 : square;
}

}  // namespace annx
