// SPDX-License-Identifier: Apache-2.0
// What codes of 4-bit pieces have in common (link_codec.h, piece_codec.h). The
// coordinates z of a vector are cut into pieces of widths[p] each, and every piece is
// replaced by one of kLinkLevels levels: levels[k * kLinkLevels + c] is coordinate k of
// level c of its piece, and z^ is what the chosen levels make together.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/kernels/table.h"

namespace annx::codec {

// Half the squared length of each level, [piece][kLinkLevels]: what encoding starts
// from.
inline std::vector<float> half_squares(const std::vector<float>& levels,
                                       const std::vector<std::uint8_t>& widths) {
  using kernels::kLinkLevels;
  std::vector<float> halves(widths.size() * kLinkLevels);
  const float* level = levels.data();
  for (std::size_t p = 0; p < widths.size(); ++p) {
    for (std::size_t k = 0; k < widths[p]; ++k, level += kLinkLevels) {
      for (std::size_t c = 0; c < kLinkLevels; ++c) {
        halves[p * kLinkLevels + c] += 0.5f * level[c] * level[c];
      }
    }
  }
  return halves;
}

// <base, level c> of each piece, [piece][kLinkLevels].
inline void level_products(const float* base, const std::vector<float>& levels,
                           const std::vector<std::uint8_t>& widths,
                           std::vector<float>& products) {
  using kernels::kLinkLevels;
  products.assign(widths.size() * kLinkLevels, 0.0f);
  const float* level = levels.data();
  for (std::size_t p = 0; p < widths.size(); ++p) {
    for (std::size_t k = 0; k < widths[p]; ++k, level += kLinkLevels, ++base) {
      for (std::size_t c = 0; c < kLinkLevels; ++c) {
        products[p * kLinkLevels + c] += *base * level[c];
      }
    }
  }
}

// The sum of table[piece][code(piece)] over all pieces.
template <class Code>
float sum_of(const std::vector<float>& table, const Code& code) {
  float sum = 0;
  for (std::size_t p = 0; p * kernels::kLinkLevels < table.size(); ++p) {
    sum += table[p * kernels::kLinkLevels + code(p)];
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
