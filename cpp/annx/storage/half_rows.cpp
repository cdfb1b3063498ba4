// SPDX-License-Identifier: Apache-2.0
#include "annx/storage/half_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "annx/base/types.h"
#include "annx/kernels/dispatch.h"

namespace annx::storage {
namespace {

constexpr auto kHalf = static_cast<std::size_t>(DType::kFloat16);
// The largest element comes to lie in [2^14, 2^15); float16 ends at 2^16.
constexpr int kTop = 15;
constexpr std::size_t kBlock = 64;

}  // namespace

void put_half_row(const float* row, std::size_t width, std::byte* out) {
  float most = 0;
  for (std::size_t k = 0; k < width; ++k) most = std::max(most, std::abs(row[k]));
  int exponent = 0;
  if (most > 0 && std::isfinite(most)) std::frexp(most, &exponent);
  // Beyond these a float has no such power of two.
  exponent = std::clamp(exponent - kTop, -126, 126);
  const float down = std::ldexp(1.0f, -exponent);
  const float up = std::ldexp(1.0f, exponent);
  // Where `out` is `row`, a block is read before it is written over: so is the scale,
  // which is written over the first element.
  float block[kBlock];
  std::byte* to = out + sizeof(float);
  for (std::size_t k = 0; k < width; k += kBlock) {
    const std::size_t count = std::min(kBlock, width - k);
    for (std::size_t i = 0; i < count; ++i) block[i] = row[k + i] * down;
    kernels::active().narrow[kHalf](block, count, to + 2 * k);
  }
  std::memcpy(out, &up, sizeof(float));
}

void get_half_row(const std::byte* in, std::size_t width, float* out) {
  float up;
  std::memcpy(&up, in, sizeof(float));
  kernels::active().widen[kHalf](in + sizeof(float), width, out);
  for (std::size_t k = 0; k < width; ++k) out[k] *= up;
}

}  // namespace annx::storage
