// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "annx/kernels/dispatch.h"

namespace annx::graph {

// |x - y|^2 by the canonical kernel.
inline float squared_distance(const float* x, const float* y, std::size_t dim) {
  float out;
  kernels::active().float_rows[kernels::kOpL2][0](
      x, reinterpret_cast<const std::byte*>(y), dim * sizeof(float), 1, dim, &out);
  return out;
}

}  // namespace annx::graph
