// SPDX-License-Identifier: Apache-2.0
// Rows of floats in half the memory, for passing use: float16 with a power of two of
// their own, so that neither very large nor very small numbers are lost. Each element
// is off by at most 2^-11 of itself, or 2^-28 of the row's largest.
#pragma once

#include <cstddef>

namespace annx::storage {

// What a row of `width` floats takes.
constexpr std::size_t half_row_bytes(std::size_t width) {
  return sizeof(float) + (width + 1) / 2 * 2 * 2;
}

// `out`, of half_row_bytes(width), may begin where `row` does.
void put_half_row(const float* row, std::size_t width, std::byte* out);
void get_half_row(const std::byte* in, std::size_t width, float* out);

}  // namespace annx::storage
