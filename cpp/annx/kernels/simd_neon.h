// SPDX-License-Identifier: Apache-2.0
// The primitive operations for NEON as every AArch64 processor has it (no optional
// extension: dot products of bytes widen instead). Included by isa_neon.cpp alone.
#pragma once

#include <arm_neon.h>

namespace annx::kernels::neon {
namespace {

// --- float lanes ---------------------------------------------------------------------

// Lane i of the 32 is element i % 4 of register i / 4.
inline constexpr int kWidth = 4;
inline constexpr int kRegs = 8;
// Sixteen sums: four pipes with a latency of four.
inline constexpr int kFloatGroup = 2;

using V = float32x4_t;
ANNX_INLINE V v_zero() { return vdupq_n_f32(0.0f); }
ANNX_INLINE V v_add(V a, V b) { return vaddq_f32(a, b); }
ANNX_INLINE V v_sub(V a, V b) { return vsubq_f32(a, b); }
ANNX_INLINE V v_abs(V a) { return vabsq_f32(a); }
ANNX_INLINE V v_fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }
ANNX_INLINE V v_set(float x) { return vdupq_n_f32(x); }
ANNX_INLINE V v_mul(V a, V b) { return vmulq_f32(a, b); }
ANNX_INLINE V v_div(V a, V b) { return vdivq_f32(a, b); }
ANNX_INLINE V v_sqrt(V a) { return vsqrtq_f32(a); }
// Lane by lane yes where x > 0, else no.
ANNX_INLINE V v_where_positive(V x, V yes, V no) {
  return vbslq_f32(vcgtzq_f32(x), yes, no);
}
ANNX_INLINE V v_numbers(const float* p) { return vld1q_f32(p); }
ANNX_INLINE V v_numbers(const std::int32_t* p) { return vcvtq_f32_s32(vld1q_s32(p)); }
ANNX_INLINE void v_store(float* p, V a) { vst1q_f32(p, a); }
ANNX_INLINE void v_store_part(float* p, V a, std::size_t n) {
  float lanes[4];
  vst1q_f32(lanes, a);
  for (std::size_t i = 0; i < n; ++i) p[i] = lanes[i];
}

// The fold of table.h.
template <int R>
ANNX_INLINE void v_fold(const V (&s)[R][kRegs], float* out) {
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) {
    const V low = v_add(v_add(s[r][0], s[r][2]), v_add(s[r][4], s[r][6]));
    const V high = v_add(v_add(s[r][1], s[r][3]), v_add(s[r][5], s[r][7]));
    const V s4 = v_add(low, high);
    const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    out[r] = (vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1)) + 0.0f;
  }
}

ANNX_INLINE uint8x16_t load_16(const std::byte* p) {
  return vld1q_u8(reinterpret_cast<const std::uint8_t*>(p));
}
// Bytes 0..15, then sixteen that give zero: a window from n on shifts down by n bytes.
alignas(32) constexpr std::uint8_t kShiftWindow[32] = {
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
// The last n < 16 bytes of a row of `size`, from byte i on, zero-filled: read again
// from the end of a row of 16 bytes or more, byte by byte in a shorter one.
ANNX_INLINE uint8x16_t last_bytes(const std::byte* row, std::size_t i, std::size_t n,
                                  std::size_t size) {
  if (size >= 16) {
    return vqtbl1q_u8(load_16(row + size - 16), vld1q_u8(kShiftWindow + 16 - n));
  }
  std::uint8_t bytes[16] = {};
  for (std::size_t j = 0; j < n; ++j) bytes[j] = static_cast<std::uint8_t>(row[i + j]);
  return vld1q_u8(bytes);
}

// Rows' element types: `full` reads 4 elements, `part` elements i .. i + n, n < 4.
struct LoadF32 {
  static constexpr std::size_t kBytes = 4;
  static ANNX_INLINE V full(const std::byte* p) {
    return vreinterpretq_f32_u8(load_16(p));
  }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return vreinterpretq_f32_u8(last_bytes(row, i * 4, n * 4, dim * 4));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    vst1q_u8(reinterpret_cast<std::uint8_t*>(p), vreinterpretq_u8_f32(a));
  }
};
ANNX_INLINE uint16x4_t words_full(const std::byte* p) {
  return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(p)));
}
ANNX_INLINE uint16x4_t words_part(const std::byte* row, std::size_t i, std::size_t n,
                                  std::size_t dim) {
  return vreinterpret_u16_u8(vget_low_u8(last_bytes(row, i * 2, n * 2, dim * 2)));
}
ANNX_INLINE void words_store(std::byte* p, uint16x4_t words) {
  vst1_u8(reinterpret_cast<std::uint8_t*>(p), vreinterpret_u8_u16(words));
}
struct LoadF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(uint16x4_t words) {
    return vcvt_f32_f16(vreinterpret_f16_u16(words));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(words_full(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(words_part(row, i, n, dim));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    words_store(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
  }
};
struct LoadBF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(uint16x4_t words) {
    return vreinterpretq_f32_u32(vshll_n_u16(words, 16));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(words_full(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(words_part(row, i, n, dim));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t even =
        vshrq_n_u32(vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF))), 16);
    const uint32x4_t quiet = vorrq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(0x40));
    // A NaN is not equal to itself.
    words_store(p, vmovn_u32(vbslq_u32(vceqq_f32(a, a), even, quiet)));
  }
};
struct LoadI16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(uint16x4_t words) {
    return vcvtq_f32_s32(vmovl_s16(vreinterpret_s16_u16(words)));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(words_full(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(words_part(row, i, n, dim));
  }
};
// Four bytes, widened.
ANNX_INLINE uint8x8_t four_bytes(const std::byte* p) {
  std::uint32_t x;
  ANNX_MEMCPY(&x, p, 4);
  return vreinterpret_u8_u32(vdup_n_u32(x));
}
struct LoadI8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V widen(uint8x8_t b) {
    const int16x8_t words = vmovl_s8(vreinterpret_s8_u8(b));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(four_bytes(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(vget_low_u8(last_bytes(row, i, n, dim)));
  }
};
struct LoadU8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V widen(uint8x8_t b) {
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(b))));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(four_bytes(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(vget_low_u8(last_bytes(row, i, n, dim)));
  }
};

ANNX_INLINE void prefetch(const void* p) {
#if defined(_MSC_VER) && !defined(__clang__)
  __prefetch(p);
#else
  __builtin_prefetch(p);
#endif
}

// --- 8-bit sums ----------------------------------------------------------------------

inline constexpr std::size_t kByteStep = 16;
inline constexpr int kByteGroup = 4;
inline constexpr int kByteTileRows = 4;

using B = uint8x16_t;
ANNX_INLINE B b_load(const std::byte* p) { return load_16(p); }
ANNX_INLINE B b_part(const std::byte* row, std::size_t i, std::size_t n,
                     std::size_t size) {
  return last_bytes(row, i, n, size);
}

using I = int32x4_t;
ANNX_INLINE I i_zero() { return vdupq_n_s32(0); }
template <int R>
ANNX_INLINE void i_fold(const I (&s)[R], std::int32_t* out) {
  ANNX_UNROLL
  for (int r = 0; r < R; ++r) out[r] = vaddvq_s32(s[r]);
}

struct NoShared {
  ANNX_INLINE void add(B) {}
  ANNX_INLINE I finish(I s) const { return s; }
};
struct I8 {
  static constexpr bool kSigned = true;
};
struct U8 {
  static constexpr bool kSigned = false;
};

// |q - x| modulo 256, which is exact: it is at most 255.
template <class T>
ANNX_INLINE B distance(B q, B x) {
  return T::kSigned ? vreinterpretq_u8_s8(
                          vabdq_s8(vreinterpretq_s8_u8(q), vreinterpretq_s8_u8(x)))
                    : vabdq_u8(q, x);
}
ANNX_INLINE I add_pairs(I s, uint16x8_t terms) {
  return vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(s), terms));
}

template <class T>
struct ByteTerm {
  using Query = B;
  using Row = B;
  using Shared = NoShared;
  static ANNX_INLINE B query(B b) { return b; }
  static ANNX_INLINE B row(B b) { return b; }
};
template <class T>
struct ByteL2 : ByteTerm<T> {
  static ANNX_INLINE I add(B q, B x, I s) {
    const B d = distance<T>(q, x);
    s = add_pairs(s, vmull_u8(vget_low_u8(d), vget_low_u8(d)));
    return add_pairs(s, vmull_high_u8(d, d));
  }
};
template <class T>
struct ByteDot : ByteTerm<T> {
  static ANNX_INLINE I add(B q, B x, I s) {
    if constexpr (T::kSigned) {
      const int8x16_t a = vreinterpretq_s8_u8(q);
      const int8x16_t b = vreinterpretq_s8_u8(x);
      s = vpadalq_s16(s, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
      return vpadalq_s16(s, vmull_high_s8(a, b));
    } else {
      s = add_pairs(s, vmull_u8(vget_low_u8(q), vget_low_u8(x)));
      return add_pairs(s, vmull_high_u8(q, x));
    }
  }
};
template <class T>
struct ByteL1 : ByteTerm<T> {
  static ANNX_INLINE I add(B q, B x, I s) {
    return add_pairs(s, vpaddlq_u8(distance<T>(q, x)));
  }
};

// --- bits ----------------------------------------------------------------------------

ANNX_INLINE std::uint64_t word_at(const std::byte* p) {
  std::uint64_t x;
  ANNX_MEMCPY(&x, p, 8);
  return x;
}
ANNX_INLINE std::uint32_t word_bits(std::uint64_t w) {
  return vaddv_u8(vcnt_u8(vcreate_u8(w)));
}
ANNX_INLINE uint32x4_t add_bits(uint32x4_t s, B x) {
  return vpadalq_u16(s, vpaddlq_u8(vcntq_u8(x)));
}
ANNX_INLINE std::uint32_t bits_xor(const std::byte* a, const std::byte* b,
                                   std::size_t bytes) {
  uint32x4_t s = vdupq_n_u32(0);
  for (std::size_t i = 0; i < bytes; i += 16) {
    const std::size_t n = bytes - i;
    const B x = n >= 16 ? b_load(a + i) : b_part(a, i, n, bytes);
    const B y = n >= 16 ? b_load(b + i) : b_part(b, i, n, bytes);
    s = add_bits(s, veorq_u8(x, y));
  }
  return vaddvq_u32(s);
}
ANNX_INLINE void bits_and_or(const std::byte* a, const std::byte* b, std::size_t bytes,
                             std::uint32_t* both, std::uint32_t* any) {
  uint32x4_t s = vdupq_n_u32(0);
  uint32x4_t t = s;
  for (std::size_t i = 0; i < bytes; i += 16) {
    const std::size_t n = bytes - i;
    const B x = n >= 16 ? b_load(a + i) : b_part(a, i, n, bytes);
    const B y = n >= 16 ? b_load(b + i) : b_part(b, i, n, bytes);
    s = add_bits(s, vandq_u8(x, y));
    t = add_bits(t, vorrq_u8(x, y));
  }
  *both = vaddvq_u32(s);
  *any = vaddvq_u32(t);
}

// --- tiles: registers of float32 and what tile.inc.h does with them ------------------

inline constexpr std::size_t kTileLanes = 4;
// 24 sums, 4 of a row panel and 1 query element of the 32 registers.
inline constexpr std::size_t kTileQueries = 6;
inline constexpr std::size_t kTileRegs = 4;

using Lanes = float32x4_t;
using LessMask = uint32x4_t;
ANNX_INLINE V v_splat(float x) { return vdupq_n_f32(x); }
ANNX_INLINE Lanes lanes_set(float x) { return vdupq_n_f32(x); }
ANNX_INLINE Lanes lanes_load(const float* p) { return vld1q_f32(p); }
ANNX_INLINE void lanes_store(float* p, Lanes a) { vst1q_f32(p, a); }
ANNX_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c) { return vfmaq_f32(c, a, b); }
ANNX_INLINE LessMask lanes_less(Lanes a, Lanes b) { return vcltq_f32(a, b); }
ANNX_INLINE LessMask less_none() { return vdupq_n_u32(0); }
ANNX_INLINE LessMask less_or(LessMask a, LessMask b) { return vorrq_u32(a, b); }
// Bit i for lane i.
ANNX_INLINE std::uint32_t less_bits(LessMask m) {
  const uint32x4_t places = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(m, places));
}
ANNX_INLINE Lanes less_pick(LessMask m, Lanes yes, Lanes no) {
  return vbslq_f32(m, yes, no);
}
ANNX_INLINE Lanes lanes_add(Lanes a, Lanes b) { return vaddq_f32(a, b); }
ANNX_INLINE Lanes lanes_sub(Lanes a, Lanes b) { return vsubq_f32(a, b); }
ANNX_INLINE Lanes lanes_min(Lanes a, Lanes b) { return vminq_f32(a, b); }
ANNX_INLINE Lanes lanes_max(Lanes a, Lanes b) { return vmaxq_f32(a, b); }
// The bits of a where `keep` has them, and those of b.
ANNX_INLINE Lanes lanes_tag(Lanes a, Lanes keep, Lanes b) {
  return vreinterpretq_f32_u32(
      vorrq_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(keep)),
                vreinterpretq_u32_f32(b)));
}
// The first n < 4 numbers from p on, the other lanes 0.
ANNX_INLINE Lanes lanes_part(const float* p, std::size_t n) {
  float x[4] = {};
  for (std::size_t i = 0; i < n; ++i) x[i] = p[i];
  return vld1q_f32(x);
}
// Rows become columns.
ANNX_INLINE void lanes_turn(Lanes (&x)[kTileLanes]) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(x[0], x[1]));
  const float64x2_t b = vreinterpretq_f64_f32(vtrn2q_f32(x[0], x[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(x[2], x[3]));
  const float64x2_t d = vreinterpretq_f64_f32(vtrn2q_f32(x[2], x[3]));
  x[0] = vreinterpretq_f32_f64(vtrn1q_f64(a, c));
  x[1] = vreinterpretq_f32_f64(vtrn1q_f64(b, d));
  x[2] = vreinterpretq_f32_f64(vtrn2q_f64(a, c));
  x[3] = vreinterpretq_f32_f64(vtrn2q_f64(b, d));
}

}  // namespace
}  // namespace annx::kernels::neon

// --- codes of links ------------------------------------------------------------------
namespace annx::kernels::neon {
namespace {

// Lanes i and i ^ h exchanged, h a power of two below kTileLanes.
ANNX_INLINE Lanes lanes_partner(Lanes a, std::size_t h) {
  return h == 1 ? vrev64q_f32(a) : vextq_f32(a, a, 2);
}

// sums[i] = sum over parts p of tables[p * 16 + code of link i in part p].
ANNX_INLINE void link_sums(const std::uint8_t* codes, std::size_t parts,
                           const std::uint8_t* tables, const LinkAhead& ahead,
                           std::int32_t* sums) {
  uint16x8_t first = vdupq_n_u16(0);
  uint16x8_t last = vdupq_n_u16(0);
  const uint8x16_t nibble = vdupq_n_u8(15);
  for (std::size_t p = 0; p < parts; p += 4) {
    if (p % 8 == 0) {  // a line of codes
      if (p < ahead.code_lines * 8) prefetch(ahead.codes + p * 8);
      if (p < ahead.row_lines * 8) prefetch(ahead.row + p * 8);
    }
    for (std::size_t half = 0; half < 2; ++half) {
      const uint8x16_t x = vld1q_u8(codes + p * 8 + 16 * half);
      const std::uint8_t* table = tables + (p + half) * 16;
      // Two entries of 127 fit a byte.
      const uint8x16_t two =
          vaddq_u8(vqtbl1q_u8(vld1q_u8(table), vandq_u8(x, nibble)),
                   vqtbl1q_u8(vld1q_u8(table + 32), vshrq_n_u8(x, 4)));
      first = vaddw_u8(first, vget_low_u8(two));
      last = vaddw_high_u8(last, two);
    }
  }
  vst1q_s32(sums, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(first))));
  vst1q_s32(sums + 4, vreinterpretq_s32_u32(vmovl_high_u16(first)));
  vst1q_s32(sums + 8, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(last))));
  vst1q_s32(sums + 12, vreinterpretq_s32_u32(vmovl_high_u16(last)));
}

// sums[i] = sum over parts p of tables[p * 16 + code of row i in part p], for a block
// of kPieceGroup rows.
ANNX_INLINE void piece_sums(const std::uint8_t* codes, std::size_t parts,
                            const std::uint8_t* tables, std::int32_t* sums) {
  uint16x8_t words[4];
  for (uint16x8_t& w : words) w = vdupq_n_u16(0);
  const uint8x16_t nibble = vdupq_n_u8(15);
  for (std::size_t p = 0; p < parts; p += 2) {
    const uint8x16_t first = vld1q_u8(tables + p * 16);
    const uint8x16_t second = vld1q_u8(tables + p * 16 + 16);
    for (int half = 0; half < 2; ++half) {
      const uint8x16_t x = vld1q_u8(codes + p * 16 + 16 * half);
      // Two entries of 127 fit a byte.
      const uint8x16_t two = vaddq_u8(vqtbl1q_u8(first, vandq_u8(x, nibble)),
                                      vqtbl1q_u8(second, vshrq_n_u8(x, 4)));
      words[2 * half] = vaddw_u8(words[2 * half], vget_low_u8(two));
      words[2 * half + 1] = vaddw_high_u8(words[2 * half + 1], two);
    }
  }
  for (int i = 0; i < 4; ++i) {
    vst1q_s32(sums + 8 * i, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words[i]))));
    vst1q_s32(sums + 8 * i + 4, vreinterpretq_s32_u32(vmovl_high_u16(words[i])));
  }
}
// The same for two groups, `stride` bytes apart.
ANNX_INLINE void piece_sums_pair(const std::uint8_t* codes, std::size_t stride,
                                 std::size_t parts, const std::uint8_t* tables,
                                 std::int32_t* sums, std::size_t /*ahead*/) {
  piece_sums(codes, parts, tables, sums);
  piece_sums(codes + stride, parts, tables, sums + kPieceGroup);
}

}  // namespace
}  // namespace annx::kernels::neon
