// SPDX-License-Identifier: Apache-2.0
// Numbers to try kernels on, the same in every run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#include "annx/base/random.h"
#include "annx/kernels/table.h"

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

// Rows in fixed point, their steps and numbers, and what they stand for.
struct FixedRows {
  std::size_t stride;
  std::vector<std::byte> rows;
  std::vector<float> steps;
  std::vector<float> numbers;
  std::vector<float> wide;
};
inline FixedRows random_fixed(std::size_t count, std::size_t dim,
                              std::uint64_t stream) {
  const std::size_t stride = kernels::kFixedHead + 2 * dim;
  const std::vector<float> room(count * dim);
  FixedRows made{stride, std::vector<std::byte>(count * stride, std::byte{0xFF}),
                 std::vector<float>(count), room, room};
  const Random random(11, stream);
  const float steps[] = {0.0f, 0x1.FFp-13f, 1.0f, 0x1.02p-140f, 0x1.82p30f};
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* row = made.rows.data() + i * made.stride;
    const float step = made.steps[i] = steps[i % std::size(steps)];
    std::memcpy(row, &step, sizeof(step));
    for (std::size_t k = 0; k < dim; ++k) {
      const auto bits = static_cast<std::uint16_t>(random.bits(i * dim + k) >> 48);
      // Ends of the range now and then.
      const auto n = k % 7 == 3 ? std::int16_t{32767} : static_cast<std::int16_t>(bits);
      std::memcpy(row + kernels::kFixedHead + 2 * k, &n, sizeof(n));
      made.numbers[i * dim + k] = static_cast<float>(n);
      made.wide[i * dim + k] = step * static_cast<float>(n);
    }
  }
  return made;
}

}  // namespace annx
