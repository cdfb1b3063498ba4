// SPDX-License-Identifier: Apache-2.0
// The primitive operations for AVX2 with FMA, F16C and POPCNT. Included by isa_avx2.cpp
// alone.
#pragma once

#include <immintrin.h>

namespace annx::kernels::avx2 {
namespace {

// --- float lanes ---------------------------------------------------------------------

// Lane i of the 32 is element i % 8 of register i / 8.
inline constexpr int kWidth = 8;
inline constexpr int kRegs = 4;
// Three rows: twelve sums, the query and a term fit the sixteen registers.
inline constexpr int kFloatGroup = 3;

using V = __m256;
ANNX_INLINE V v_zero() { return _mm256_setzero_ps(); }
ANNX_INLINE V v_add(V a, V b) { return _mm256_add_ps(a, b); }
ANNX_INLINE V v_sub(V a, V b) { return _mm256_sub_ps(a, b); }
ANNX_INLINE V v_abs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
ANNX_INLINE V v_fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
ANNX_INLINE V v_set(float x) { return _mm256_set1_ps(x); }
ANNX_INLINE V v_mul(V a, V b) { return _mm256_mul_ps(a, b); }
ANNX_INLINE V v_div(V a, V b) { return _mm256_div_ps(a, b); }
ANNX_INLINE V v_sqrt(V a) { return _mm256_sqrt_ps(a); }
// Lane by lane yes where x > 0, else no.
ANNX_INLINE V v_where_positive(V x, V yes, V no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, v_zero(), _CMP_GT_OQ));
}
ANNX_INLINE V v_numbers(const float* p) { return _mm256_loadu_ps(p); }
ANNX_INLINE V v_numbers(const std::int32_t* p) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
ANNX_INLINE void v_store(float* p, V a) { _mm256_storeu_ps(p, a); }

// Sixteen words of which a window of eight, starting at 8 - n, sets the first n lanes.
alignas(32) constexpr std::int32_t kMaskWindow[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                      0,  0,  0,  0,  0,  0,  0,  0};
ANNX_INLINE __m256i first_lanes(std::size_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMaskWindow + 8 - n));
}
ANNX_INLINE void v_store_part(float* p, V a, std::size_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), a);
}

// The fold of table.h for R rows. Rows share registers on the way down: each addition
// has the same two operands as in the fold of one row.
ANNX_INLINE V fold_to_8(const V (&s)[kRegs]) {
  return _mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3]));
}
// Lanes 0-3 hold s4 of a, lanes 4-7 s4 of b.
ANNX_INLINE V fold_to_4(V a, V b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),
                       _mm256_permute2f128_ps(a, b, 0x31));
}
template <int R>
ANNX_INLINE void v_fold(const V (&s)[R][kRegs], float* out) {
  static_assert(R >= 1 && R <= 4);
  if constexpr (R == 1) {
    const V s8 = fold_to_8(s[0]);
    const __m128 s4 =
        _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    out[0] = _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2))) + 0.0f;
  } else if constexpr (R == 2) {
    const V s4 = fold_to_4(fold_to_8(s[0]), fold_to_8(s[1]));
    const V s2 = _mm256_add_ps(s4, _mm256_permute_ps(s4, 0x4E));
    const V sum = _mm256_add_ps(_mm256_add_ps(s2, _mm256_movehdup_ps(s2)), v_zero());
    out[0] = _mm256_cvtss_f32(sum);
    out[1] = _mm_cvtss_f32(_mm256_extractf128_ps(sum, 1));
  } else {
    // a, b and c, d (d = c for three rows) -> a, c | b, d.
    const V ab = fold_to_4(fold_to_8(s[0]), fold_to_8(s[1]));
    const V c8 = fold_to_8(s[2]);
    const V cd = fold_to_4(c8, R == 4 ? fold_to_8(s[R - 1]) : c8);
    const V s2 = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(
                                   _mm256_castps_pd(ab), _mm256_castps_pd(cd))),
                               _mm256_castpd_ps(_mm256_unpackhi_pd(
                                   _mm256_castps_pd(ab), _mm256_castps_pd(cd))));
    const V sum = _mm256_add_ps(_mm256_add_ps(s2, _mm256_movehdup_ps(s2)), v_zero());
    const __m128 low = _mm256_castps256_ps128(sum);     // a . c .
    const __m128 high = _mm256_extractf128_ps(sum, 1);  // b . d .
    const __m128 all = _mm_unpacklo_ps(_mm_shuffle_ps(low, low, 0x88),
                                       _mm_shuffle_ps(high, high, 0x88));  // a b c d
    if constexpr (R == 4) {
      _mm_storeu_ps(out, all);
    } else {
      _mm_storel_pi(reinterpret_cast<__m64*>(out), all);
      out[2] = _mm_cvtss_f32(_mm_movehl_ps(all, all));
    }
  }
}

ANNX_INLINE __m128i load_16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
ANNX_INLINE __m128i load_8(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}

// Bytes 0..31 of which a window of 16 starting at n shifts a register down by n bytes,
// zeros coming in (an index with its top bit set gives zero).
alignas(32) constexpr std::uint8_t kShiftWindow[32] = {
    0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128};

// n < 16 bytes, zero-filled, in pieces. Not inline: it would be a third of the code, in
// every tail of every loop, and only rows below 16 bytes come here.
ANNX_NOINLINE static __m128i few_bytes(const std::byte* p, std::size_t n) {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  std::size_t at = 0;
  if (n & 8) {
    ANNX_MEMCPY(&low, p, 8);
    at = 8;
  }
  std::uint64_t rest = 0;
  int shift = 0;
  if (n & 4) {
    std::uint32_t x;
    ANNX_MEMCPY(&x, p + at, 4);
    rest = x;
    shift = 32;
    at += 4;
  }
  if (n & 2) {
    std::uint16_t x;
    ANNX_MEMCPY(&x, p + at, 2);
    rest |= static_cast<std::uint64_t>(x) << shift;
    shift += 16;
    at += 2;
  }
  if (n & 1) rest |= static_cast<std::uint64_t>(p[at]) << shift;
  ((n & 8) ? high : low) |= rest;
  return _mm_set_epi64x(static_cast<long long>(high), static_cast<long long>(low));
}

// The last n < 16 bytes of a row of `size`, from byte i on, zero-filled. A row of 16
// bytes or more is read again from its end, backwards; a shorter one in pieces.
ANNX_INLINE __m128i last_bytes(const std::byte* row, std::size_t i, std::size_t n,
                               std::size_t size) {
  if (size < 16) return few_bytes(row + i, n);
  const __m128i window =
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(kShiftWindow + 16 - n));
  return _mm_shuffle_epi8(load_16(row + size - 16), window);
}

struct LoadF32 {
  static constexpr std::size_t kBytes = 4;
  static ANNX_INLINE V full(const std::byte* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  // Elements i .. i + n, n < 8, of a row of `dim`.
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return _mm256_maskload_ps(reinterpret_cast<const float*>(row + i * 4),
                              first_lanes(n));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    v_store(reinterpret_cast<float*>(p), a);
  }
};

struct LoadF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V full(const std::byte* p) { return _mm256_cvtph_ps(load_16(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return _mm256_cvtph_ps(last_bytes(row, i * 2, n * 2, dim * 2));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
};

struct LoadBF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(__m128i words) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(load_16(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(last_bytes(row, i * 2, n * 2, dim * 2));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i even = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
    const __m256i quiet =
        _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i words = _mm256_blendv_epi8(even, quiet, nan);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi32(_mm256_castsi256_si128(words),
                                      _mm256_extracti128_si256(words, 1)));
  }
};

struct LoadI16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(__m128i words) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(words));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(load_16(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(last_bytes(row, i * 2, n * 2, dim * 2));
  }
};
struct LoadI8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V widen(__m128i b) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(load_8(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(last_bytes(row, i, n, dim));
  }
};
struct LoadU8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V widen(__m128i b) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(load_8(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t dim) {
    return widen(last_bytes(row, i, n, dim));
  }
};

ANNX_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// --- 8-bit sums ----------------------------------------------------------------------

inline constexpr std::size_t kByteStep = 32;
inline constexpr int kByteGroup = 4;
inline constexpr int kByteTileRows = 4;

using B = __m256i;
ANNX_INLINE B b_load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
// Thirty-two zeros, then thirty-two ones: a window from n on keeps the last n bytes.
alignas(32) constexpr std::int8_t kLastBytes[64] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
// Bytes i .. i + n, n < 32, in any lanes (the same for every row of a size); the other
// lanes are zero. Read again from the end of the row where it is long enough.
ANNX_INLINE B b_part(const std::byte* row, std::size_t i, std::size_t n,
                     std::size_t size) {
  if (size >= 32) {
    return _mm256_and_si256(
        b_load(row + size - 32),
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kLastBytes + n)));
  }
  if (n >= 16) {  // then i is 0
    return _mm256_set_m128i(last_bytes(row, 16, n - 16, size), load_16(row));
  }
  return _mm256_zextsi128_si256(last_bytes(row, i, n, size));
}

using I = __m256i;
ANNX_INLINE I i_zero() { return _mm256_setzero_si256(); }
template <int R>
ANNX_INLINE void i_fold(const I (&s)[R], std::int32_t* out) {
  static_assert(R == 1 || R == 4);
  if constexpr (R == 1) {
    __m128i t =
        _mm_add_epi32(_mm256_castsi256_si128(s[0]), _mm256_extracti128_si256(s[0], 1));
    t = _mm_add_epi32(t, _mm_unpackhi_epi64(t, t));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 1));
    out[0] = _mm_cvtsi128_si32(t);
  } else {
    const __m256i t =
        _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]), _mm256_hadd_epi32(s[2], s[3]));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out),
        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1)));
  }
}

// Thirty-two bytes as 16-bit numbers: those at even places and those at odd ones.
struct Words {
  __m256i even, odd;
};
// The sign bit flipped maps int8 to uint8 in order, differences unchanged.
template <class T>
ANNX_INLINE B as_unsigned(B x) {
  return T::kSigned ? _mm256_xor_si256(x, _mm256_set1_epi8(-128)) : x;
}
struct I8 {
  static constexpr bool kSigned = true;
};
struct U8 {
  static constexpr bool kSigned = false;
};
ANNX_INLINE Words words_unsigned(B x) {
  return {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
}
ANNX_INLINE Words words_signed(B x) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
}

// No sums over the query alone are needed here.
struct NoShared {
  ANNX_INLINE void add(B) {}
  ANNX_INLINE I finish(I s) const { return s; }
};

template <class T>
struct ByteL2 {
  using Query = Words;
  using Row = Words;
  using Shared = NoShared;
  static ANNX_INLINE Words query(B b) { return words_unsigned(as_unsigned<T>(b)); }
  static ANNX_INLINE Words row(B b) { return words_unsigned(as_unsigned<T>(b)); }
  static ANNX_INLINE I add(const Words& q, const Words& x, I s) {
    const __m256i a = _mm256_sub_epi16(q.even, x.even);
    const __m256i b = _mm256_sub_epi16(q.odd, x.odd);
    return _mm256_add_epi32(
        s, _mm256_add_epi32(_mm256_madd_epi16(a, a), _mm256_madd_epi16(b, b)));
  }
};
template <class T>
struct ByteDot {
  using Query = Words;
  using Row = Words;
  using Shared = NoShared;
  static ANNX_INLINE Words query(B b) { return row(b); }
  static ANNX_INLINE Words row(B b) {
    return T::kSigned ? words_signed(b) : words_unsigned(b);
  }
  static ANNX_INLINE I add(const Words& q, const Words& x, I s) {
    return _mm256_add_epi32(s, _mm256_add_epi32(_mm256_madd_epi16(q.even, x.even),
                                                _mm256_madd_epi16(q.odd, x.odd)));
  }
};
template <class T>
struct ByteL1 {
  using Query = B;
  using Row = B;
  using Shared = NoShared;
  static ANNX_INLINE B query(B b) { return as_unsigned<T>(b); }
  static ANNX_INLINE B row(B b) { return as_unsigned<T>(b); }
  // Four sums of eight differences, each below 2^31 for any dim allowed.
  static ANNX_INLINE I add(B q, B x, I s) {
    return _mm256_add_epi32(s, _mm256_sad_epu8(q, x));
  }
};

// --- bits ----------------------------------------------------------------------------

ANNX_INLINE std::uint64_t word_at(const std::byte* p) {
  std::uint64_t x;
  ANNX_MEMCPY(&x, p, 8);
  return x;
}
// The last n < 8 bytes of a row of `size`, zero-filled.
ANNX_INLINE std::uint64_t last_word(const std::byte* row, std::size_t n,
                                    std::size_t size) {
  if (size >= 8) return word_at(row + size - 8) >> (8 * (8 - n));
  return static_cast<std::uint64_t>(_mm_cvtsi128_si64(last_bytes(row, 0, n, size)));
}
ANNX_INLINE std::uint32_t word_bits(std::uint64_t w) {
  return static_cast<std::uint32_t>(_mm_popcnt_u64(w));
}

// Bits set in each byte, by a table of nibbles.
ANNX_INLINE __m256i byte_bits(__m256i x) {
  const __m256i table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2,
                       2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i nibble = _mm256_set1_epi8(15);
  return _mm256_add_epi8(
      _mm256_shuffle_epi8(table, _mm256_and_si256(x, nibble)),
      _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
}
ANNX_INLINE std::uint32_t fold_longs(__m256i s) {
  const __m128i t =
      _mm_add_epi64(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si64(t) + _mm_extract_epi64(t, 1));
}

// Below this many bytes one POPCNT a word is quicker than the table of nibbles: rows of
// eight words or less, which bit_words() takes.
inline constexpr std::size_t kVectorBits = 65;

ANNX_INLINE std::uint32_t bits_xor(const std::byte* a, const std::byte* b,
                                   std::size_t bytes) {
  std::size_t i = 0;
  std::uint32_t n = 0;
  if (bytes >= kVectorBits) {
    __m256i sum = _mm256_setzero_si256();
    for (; i + 64 <= bytes; i += 64) {
      const __m256i x = byte_bits(_mm256_xor_si256(b_load(a + i), b_load(b + i)));
      const __m256i y =
          byte_bits(_mm256_xor_si256(b_load(a + i + 32), b_load(b + i + 32)));
      sum = _mm256_add_epi64(
          sum, _mm256_sad_epu8(_mm256_add_epi8(x, y), _mm256_setzero_si256()));
    }
    if (i + 32 <= bytes) {
      const __m256i x = byte_bits(_mm256_xor_si256(b_load(a + i), b_load(b + i)));
      sum = _mm256_add_epi64(sum, _mm256_sad_epu8(x, _mm256_setzero_si256()));
      i += 32;
    }
    n = fold_longs(sum);
  }
  for (; i + 32 <= bytes; i += 32) {
    n += (word_bits(word_at(a + i) ^ word_at(b + i)) +
          word_bits(word_at(a + i + 8) ^ word_at(b + i + 8))) +
         (word_bits(word_at(a + i + 16) ^ word_at(b + i + 16)) +
          word_bits(word_at(a + i + 24) ^ word_at(b + i + 24)));
  }
  for (; i + 8 <= bytes; i += 8) n += word_bits(word_at(a + i) ^ word_at(b + i));
  if (i < bytes) {
    n += word_bits(last_word(a, bytes - i, bytes) ^ last_word(b, bytes - i, bytes));
  }
  return n;
}
ANNX_INLINE void bits_and_or(const std::byte* a, const std::byte* b, std::size_t bytes,
                             std::uint32_t* both, std::uint32_t* any) {
  std::size_t i = 0;
  std::uint32_t n = 0;
  std::uint32_t m = 0;
  if (bytes >= kVectorBits) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i sum = zero;
    __m256i sum_any = zero;
    for (; i + 32 <= bytes; i += 32) {
      const __m256i x = b_load(a + i);
      const __m256i y = b_load(b + i);
      sum = _mm256_add_epi64(sum,
                             _mm256_sad_epu8(byte_bits(_mm256_and_si256(x, y)), zero));
      sum_any = _mm256_add_epi64(
          sum_any, _mm256_sad_epu8(byte_bits(_mm256_or_si256(x, y)), zero));
    }
    n = fold_longs(sum);
    m = fold_longs(sum_any);
  }
  for (; i + 8 <= bytes; i += 8) {
    const std::uint64_t x = word_at(a + i);
    const std::uint64_t y = word_at(b + i);
    n += word_bits(x & y);
    m += word_bits(x | y);
  }
  if (i < bytes) {
    const std::uint64_t x = last_word(a, bytes - i, bytes);
    const std::uint64_t y = last_word(b, bytes - i, bytes);
    n += word_bits(x & y);
    m += word_bits(x | y);
  }
  *both = n;
  *any = m;
}

}  // namespace
}  // namespace annx::kernels::avx2

// --- tiles: registers of float32 and what tile.inc.h does with them -----------------
namespace annx::kernels::avx2 {
namespace {

inline constexpr std::size_t kTileLanes = 8;
// 12 sums, 3 of a row panel and 1 query element: all 16 registers. 6 x 2 would make the
// same sums of fewer bytes, but with 8 loads for 12 multiply-adds and not 7: a tenth
// slower on a core whose decoder is shared with another thread, and no faster alone.
inline constexpr std::size_t kTileQueries = 4;
inline constexpr std::size_t kTileRegs = 3;

ANNX_INLINE V v_splat(float x) { return _mm256_set1_ps(x); }

using Lanes = __m256;
using LessMask = __m256;
ANNX_INLINE Lanes lanes_set(float x) { return _mm256_set1_ps(x); }
ANNX_INLINE Lanes lanes_load(const float* p) { return _mm256_loadu_ps(p); }
ANNX_INLINE void lanes_store(float* p, Lanes a) { _mm256_storeu_ps(p, a); }
ANNX_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c) {
  return _mm256_fmadd_ps(a, b, c);
}
ANNX_INLINE LessMask lanes_less(Lanes a, Lanes b) {
  return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
ANNX_INLINE LessMask less_none() { return _mm256_setzero_ps(); }
ANNX_INLINE LessMask less_or(LessMask a, LessMask b) { return _mm256_or_ps(a, b); }
ANNX_INLINE std::uint32_t less_bits(LessMask m) {
  return static_cast<std::uint32_t>(_mm256_movemask_ps(m));
}
ANNX_INLINE Lanes less_pick(LessMask m, Lanes yes, Lanes no) {
  return _mm256_blendv_ps(no, yes, m);
}
ANNX_INLINE Lanes lanes_add(Lanes a, Lanes b) { return _mm256_add_ps(a, b); }
ANNX_INLINE Lanes lanes_sub(Lanes a, Lanes b) { return _mm256_sub_ps(a, b); }
ANNX_INLINE Lanes lanes_min(Lanes a, Lanes b) { return _mm256_min_ps(a, b); }
ANNX_INLINE Lanes lanes_max(Lanes a, Lanes b) { return _mm256_max_ps(a, b); }
// The bits of a where `keep` has them, and those of b.
ANNX_INLINE Lanes lanes_tag(Lanes a, Lanes keep, Lanes b) {
  return _mm256_or_ps(_mm256_and_ps(a, keep), b);
}
// The first n < 8 numbers from p on, the other lanes 0.
ANNX_INLINE Lanes lanes_part(const float* p, std::size_t n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
// Rows become columns.
ANNX_INLINE void lanes_turn(Lanes (&x)[kTileLanes]) {
  Lanes a[8];
  ANNX_UNROLL
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  Lanes b[8];
  ANNX_UNROLL
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
  }
  ANNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace annx::kernels::avx2

// --- codes of links ------------------------------------------------------------------
namespace annx::kernels::avx2 {
namespace {

// Lanes i and i ^ h exchanged, h a power of two below kTileLanes.
ANNX_INLINE Lanes lanes_partner(Lanes a, std::size_t h) {
  if (h == 1) return _mm256_permute_ps(a, 0xB1);
  if (h == 2) return _mm256_permute_ps(a, 0x4E);
  return _mm256_permute2f128_ps(a, a, 1);
}

// Sums of 16-bit words, `all` of pairs of bytes and `odd` of their odd halves, in
// order.
ANNX_INLINE void store_sums(__m256i all, __m256i odd, std::int32_t* sums) {
  const __m256i even = _mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8));
  const __m256i a = _mm256_unpacklo_epi16(even, odd);  // codes 0-7, 16-23
  const __m256i b = _mm256_unpackhi_epi16(even, odd);  // codes 8-15, 24-31
  const auto store = [&](int at, __m128i words) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + at),
                        _mm256_cvtepu16_epi32(words));
  };
  store(0, _mm256_castsi256_si128(a));
  store(8, _mm256_castsi256_si128(b));
  store(16, _mm256_extracti128_si256(a, 1));
  store(24, _mm256_extracti128_si256(b, 1));
}

// Blocks of codes that are looked at together share the loads of tables. With kAhead
// the lines `ahead` bytes on are asked for.
template <std::size_t G, bool kAhead>
ANNX_INLINE void group_sums(const std::uint8_t* codes, std::size_t stride,
                            std::size_t parts, const std::uint8_t* tables,
                            std::int32_t* sums, std::size_t ahead) {
  const auto table = [&](std::size_t part) {
    return _mm256_broadcastsi128_si256(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(tables + part * 16)));
  };
  const __m256i nibble = _mm256_set1_epi8(15);
  // Two entries of 127 fit a byte. Bytes are added up in pairs, as 16-bit words; the
  // odd ones are added again by themselves and taken off at the end.
  __m256i all[G];
  __m256i odd[G];
  ANNX_UNROLL
  for (std::size_t g = 0; g < G; ++g) all[g] = odd[g] = _mm256_setzero_si256();
  const auto add_two = [&](std::size_t p) {
    const __m256i first = table(p);
    const __m256i second = table(p + 1);
    ANNX_UNROLL
    for (std::size_t g = 0; g < G; ++g) {
      const __m256i x = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(codes + g * stride + p * 16));
      const __m256i low = _mm256_and_si256(x, nibble);
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
      const __m256i two = _mm256_add_epi8(_mm256_shuffle_epi8(first, low),
                                          _mm256_shuffle_epi8(second, high));
      all[g] = _mm256_add_epi16(all[g], two);
      odd[g] = _mm256_add_epi16(odd[g], _mm256_srli_epi16(two, 8));
    }
  };
  for (std::size_t p = 0; p < parts; p += 4) {
    if constexpr (kAhead) {
      ANNX_UNROLL
      for (std::size_t g = 0; g < G; ++g) {
        _mm_prefetch(reinterpret_cast<const char*>(codes + g * stride + p * 16 + ahead),
                     _MM_HINT_T0);
      }
    }
    add_two(p);
    add_two(p + 2);
  }
  ANNX_UNROLL
  for (std::size_t g = 0; g < G; ++g)
    store_sums(all[g], odd[g], sums + g * kPieceGroup);
}

// sums[i] = sum over parts p of tables[p * 16 + code of row i in part p].
ANNX_INLINE void piece_sums(const std::uint8_t* codes, std::size_t parts,
                            const std::uint8_t* tables, std::int32_t* sums) {
  group_sums<1, false>(codes, 0, parts, tables, sums, 0);
}
// The same for two groups, `stride` bytes apart. Where `ahead` is not 0, codes that
// many bytes on will be wanted soon.
ANNX_INLINE void piece_sums_pair(const std::uint8_t* codes, std::size_t stride,
                                 std::size_t parts, const std::uint8_t* tables,
                                 std::int32_t* sums, std::size_t ahead) {
  if (ahead != 0) {
    group_sums<2, true>(codes, stride, parts, tables, sums, ahead);
  } else {
    group_sums<2, false>(codes, stride, parts, tables, sums, 0);
  }
}

}  // namespace
}  // namespace annx::kernels::avx2
