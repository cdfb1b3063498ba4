// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: value i of a stream is a pure function of
// (seed, stream, i), so any thread may draw any of them, in any order, and
// annx.reference draws the very same. The mix is the finalizer of SplitMix64
// (Steele, Lea and Flood, 2014) applied twice: once to make a key, once a value.
#pragma once

#include <cstddef>
#include <cstdint>

namespace annx {

inline constexpr std::uint64_t mix64(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9ull;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBull;
  x ^= x >> 31;
  return x;
}

class Random {
 public:
  explicit constexpr Random(std::uint64_t seed, std::uint64_t stream = 0)
      : key_(mix64(seed + 0x9E3779B97F4A7C15ull * (stream + 1))) {}

  constexpr std::uint64_t bits(std::uint64_t i) const {
    return mix64(key_ + 0x9E3779B97F4A7C15ull * (i + 1));
  }
  // In [0, n) for n >= 1, by remainder: the bias is below n / 2^64.
  constexpr std::uint64_t below(std::uint64_t i, std::uint64_t n) const {
    return bits(i) % n;
  }
  // In [0, 1), the top 53 bits.
  constexpr double unit(std::uint64_t i) const {
    return static_cast<double>(bits(i) >> 11) * 0x1.0p-53;
  }

 private:
  std::uint64_t key_;
};

}  // namespace annx
