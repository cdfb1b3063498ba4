// SPDX-License-Identifier: Apache-2.0
// What codes of 4-bit pieces have in common (link_codec.h, piece_codec.h). The
// coordinates z of a vector are cut into pieces of widths[p] each, and every piece is
// replaced by one of `count` levels, 16 or 256: levels[k * count + c] is coordinate k
// of level c of its piece, and z^ is what the chosen levels make together.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/kernels/table.h"

namespace annx::codec {

// Half the squared length of each level, [piece][count]: what encoding starts from.
inline std::vector<float> half_squares(const std::vector<float>& levels,
                                       const std::vector<std::uint8_t>& widths,
                                       std::size_t count = kernels::kLinkLevels) {
  std::vector<float> halves(widths.size() * count);
  const float* level = levels.data();
  for (std::size_t p = 0; p < widths.size(); ++p) {
    for (std::size_t k = 0; k < widths[p]; ++k, level += count) {
      for (std::size_t c = 0; c < count; ++c) {
        halves[p * count + c] += 0.5f * level[c] * level[c];
      }
    }
  }
  return halves;
}

// <base, level c> of each piece, [piece][count].
inline void level_products(const float* base, const std::vector<float>& levels,
                           const std::vector<std::uint8_t>& widths,
                           std::vector<float>& products,
                           std::size_t count = kernels::kLinkLevels) {
  products.assign(widths.size() * count, 0.0f);
  const float* level = levels.data();
  for (std::size_t p = 0; p < widths.size(); ++p) {
    for (std::size_t k = 0; k < widths[p]; ++k, level += count, ++base) {
      for (std::size_t c = 0; c < count; ++c) {
        products[p * count + c] += *base * level[c];
      }
    }
  }
}

// The sum of table[piece][code(piece)] over all pieces.
template <class Code>
float sum_of(const std::vector<float>& table, const Code& code,
             std::size_t count = kernels::kLinkLevels) {
  float sum = 0;
  for (std::size_t p = 0; p * count < table.size(); ++p) {
    sum += table[p * count + code(p)];
  }
  return sum;
}

// The power of two nearest to x, which float16 numbers are kept as multiples of: 1
// where a float32 could not hold x and its products.
inline float unit_near(double x) {
  return x > 1e-36 && x < 1e36 ? static_cast<float>(std::exp2(std::round(std::log2(x))))
                               : 1.0f;
}

}  // namespace annx::codec
