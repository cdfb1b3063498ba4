// SPDX-License-Identifier: Apache-2.0
// Names of metrics and element types, and the checks that turn text into them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace annx {

static_assert(sizeof(void*) == 8 && std::endian::native == std::endian::little,
              "annx needs a 64-bit little-endian machine");

// Smaller is nearer for every metric: `kInnerProduct` is the negated inner product.
enum class Metric : std::uint8_t {
  kL2 = 0,            // squared Euclidean
  kInnerProduct = 1,  // -<q, x>
  kCosine = 2,        // 1 - <q, x> / (|q||x|); 1 where either is zero
  kL1 = 3,            // sum |q - x|
  kHamming = 4,       // differing bits
  kJaccard = 5,       // 1 - |q & x| / |q | x|; 0 where both are empty
  kPoincare = 6,      // hyperbolic, within the unit ball (base/ball.h)
};
inline constexpr std::size_t kMetrics = 7;

enum class DType : std::uint8_t {
  kFloat32 = 0,
  kFloat16 = 1,
  kBFloat16 = 2,
  kInt8 = 3,
  kUInt8 = 4,
  kBits = 5,  // `dim` counts bits; bit 0 of byte 0 first
};

// These throw InvalidArgument naming the accepted words. "poincare" is a metric only
// for parse_any_metric: few families have it.
Metric parse_metric(std::string_view name);
Metric parse_any_metric(std::string_view name);
DType parse_dtype(std::string_view name);
std::string_view name_of(Metric metric);
std::string_view name_of(DType dtype);

// Bytes that a row of `dim` elements takes without padding.
std::size_t row_bytes(DType dtype, std::size_t dim);

inline constexpr std::uint32_t kNoSlot = 0xFFFFFFFFu;

}  // namespace annx
