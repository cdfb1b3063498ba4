// SPDX-License-Identifier: Apache-2.0
// Poincare's ball: hyperbolic space on the vectors of length below 1, where
//
//   d(u, v) = arcosh(1 + 2 key) = 2 arsinh(sqrt(key)),
//   key     = |u - v|^2 / ((1 - |u|^2) (1 - |v|^2)) = sinh^2(d / 2)
//
// (Nickel and Kiela, "Poincare embeddings", 2017). The key orders as the distance does
// and needs no function, so searches compare keys. Near the edge everything hangs on
// 1 - |x|^2: it is summed with the rounding errors of each step, so it keeps 53 bits
// however small it is; and arsinh does not cancel where arcosh does.
#pragma once

#include <cmath>
#include <cstddef>

namespace annx {

// Gaps below this count as none: key then stays within float32 for any two vectors.
inline constexpr double kLeastGap = 0x1p-50;

// 1 - |x|^2. Squares of float32 are exact in float64; `low` collects what the
// subtractions round away (Knuth's two-sum).
inline double ball_gap(const float* x, std::size_t dim) {
  double high = 1;
  double low = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    const double square = static_cast<double>(x[i]) * x[i];
    const double next = high - square;
    const double taken = next - high;
    low += (high - (next - taken)) - (square + taken);
    high = next;
  }
  return high + low;
}

// From |u - v|^2, 1 / (1 - |u|^2) and 1 / (1 - |v|^2), the last rounded to float32.
inline float ball_key(float square, double query, float row) {
  return static_cast<float>(static_cast<double>(square) * (query * row));
}

inline float ball_distance(float key) {
  return static_cast<float>(2 * std::asinh(std::sqrt(static_cast<double>(key))));
}

}  // namespace annx
