// SPDX-License-Identifier: Apache-2.0
// Numbers to try kernels on, the same in every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/random.h"

namespace annx {

inline std::vector<std::byte> random_bytes(std::size_t n, std::uint64_t stream) {
  const Random random(7, stream);
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) {
    bytes[i] = static_cast<std::byte>(random.bits(i) >> 40);
  }
  return bytes;
}

inline std::vector<float> random_floats(std::size_t n, std::uint64_t stream) {
  const Random random(9, stream);
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = static_cast<float>(random.unit(i) * 4 - 2);
  }
  return x;
}

}  // namespace annx
