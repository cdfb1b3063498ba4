// SPDX-License-Identifier: Apache-2.0
// A hint to bring memory near; never faults. Nothing where the compiler has no portable
// way to say it: the kernels prefetch rows by themselves.
#pragma once

#include <cstddef>

namespace annx {

inline void prefetch([[maybe_unused]] const void* p) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(p, 0, 3);
#endif
}

// The first `bytes` bytes from p, at most `most` cache lines of them.
inline void prefetch_lines(const void* p, std::size_t bytes, std::size_t most) {
  const auto* at = static_cast<const std::byte*>(p);
  const std::size_t lines = (bytes + 63) / 64;
  for (std::size_t i = 0; i < (lines < most ? lines : most); ++i) prefetch(at + 64 * i);
}

}  // namespace annx
