// SPDX-License-Identifier: Apache-2.0
// About the m least of n numbers, without sorting: the numbers are counted against a
// threshold that is halved in, a few passes of vector code with no branch that the
// data decide. For hundreds of numbers that is several times quicker than a heap or a
// selection by exchanges.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace annx::search {

inline std::size_t count_up_to(const float* x, std::size_t n, float limit) {
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += x[i] <= limit ? 1u : 0u;
  return count;
}

// A value t with at least m of x[i] <= t, and if no more than that share it at most
// m + slack. 1 <= m <= n; no NaN.
inline float least_limit(const float* x, std::size_t n, std::size_t m,
                         std::size_t slack) {
  float low = x[0];
  float high = x[0];
  for (std::size_t i = 1; i < n; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  if (m + slack >= n) return high;
  if (count_up_to(x, n, low) >= m) return low;
  for (int pass = 0; pass < 64; ++pass) {
    const float middle = low + (high - low) * 0.5f;
    if (!(middle > low && middle < high)) break;
    const std::size_t count = count_up_to(x, n, middle);
    if (count < m) {
      low = middle;
    } else {
      high = middle;
      if (count <= m + slack) break;
    }
  }
  return high;
}

}  // namespace annx::search
