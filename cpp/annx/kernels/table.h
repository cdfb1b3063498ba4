// SPDX-License-Identifier: Apache-2.0
// Every kernel's signature and contract. One table of these per instruction set;
// dispatch.h picks one at run time.
//
// Common contract. Pointers are valid for the stated extent and need no alignment.
// Outputs do not alias inputs. Kernels never allocate, never throw and read nothing
// outside the rows that they are given (tails are masked, never over-read).
//
// Accumulation. Float kernels hold 32 partial sums: element i goes to lane i % 32 by one
// fused multiply-add in order of i, and the lanes are folded 32 -> 8 -> 4 -> 2 -> 1:
//   s8[j] = (l[j] + l[j+8]) + (l[j+16] + l[j+24]); s4[j] = s8[j] + s8[j+4];
//   s2[j] = s4[j] + s4[j+2]; s = s2[0] + s2[1].
// So every instruction set gives the same bits, and one row's distance does not depend on
// the rows beside it: this is the canonical distance of DESIGN.md. Against exact
// arithmetic the error is at most (dim / 32 + 6) * 2^-24 * sum |terms|.
// 8-bit kernels are exact in int32; dim must be at most kMaxDim8.
#pragma once

#include <cstddef>
#include <cstdint>

namespace annx::kernels {

// Largest dim for which an 8-bit sum cannot overflow int32: 255^2 * 33025 < 2^31.
inline constexpr std::size_t kMaxDim8 = 33025;

// The operations. `kOpDot` is the plain (not negated) inner product.
enum Op : std::uint8_t { kOpL2 = 0, kOpDot = 1, kOpL1 = 2, kOpCount = 3 };

// Float rows: 0 float32, 1 float16, 2 bfloat16 (as annx::DType). The query is float32.
inline constexpr std::size_t kFloatTypes = 3;
// 8-bit rows: 0 int8, 1 uint8. The query has the rows' type.
inline constexpr std::size_t kByteTypes = 2;

// out[i] = op(query, row i) for `count` rows, `stride` bytes apart.
using FloatRows = void (*)(const float* query, const std::byte* rows, std::size_t stride,
                           std::size_t count, std::size_t dim, float* out);
// out[i] = op(query, row slots[i]); rows ahead are prefetched.
using FloatGather = void (*)(const float* query, const std::byte* rows,
                             std::size_t stride, const std::uint32_t* slots,
                             std::size_t count, std::size_t dim, float* out);
using ByteRows = void (*)(const std::byte* query, const std::byte* rows,
                          std::size_t stride, std::size_t count, std::size_t dim,
                          std::int32_t* out);
using ByteGather = void (*)(const std::byte* query, const std::byte* rows,
                            std::size_t stride, const std::uint32_t* slots,
                            std::size_t count, std::size_t dim, std::int32_t* out);

struct KernelTable {
  const char* isa;
  FloatRows float_rows[kOpCount][kFloatTypes];
  FloatGather float_gather[kOpCount][kFloatTypes];
  ByteRows byte_rows[kOpCount][kByteTypes];
  ByteGather byte_gather[kOpCount][kByteTypes];
};

}  // namespace annx::kernels
