// SPDX-License-Identifier: Apache-2.0
// The primitive operations for AVX-512 (F, BW, VL, DQ, VNNI, VPOPCNTDQ). Tails are
// loads under a mask, which never touch a masked byte. Included by isa_avx512.cpp
// alone.
#pragma once

#include <immintrin.h>

namespace annx::kernels::avx512 {
namespace {

// --- float lanes ---------------------------------------------------------------------

// Lane i of the 32 is element i % 16 of register i / 16.
inline constexpr int kWidth = 16;
inline constexpr int kRegs = 2;
// Eight sums hide the latency of two fused multiply-adds a cycle.
inline constexpr int kFloatGroup = 4;

using V = __m512;
ANNX_INLINE V v_zero() { return _mm512_setzero_ps(); }
ANNX_INLINE V v_add(V a, V b) { return _mm512_add_ps(a, b); }
ANNX_INLINE V v_sub(V a, V b) { return _mm512_sub_ps(a, b); }
ANNX_INLINE V v_abs(V a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
ANNX_INLINE V v_fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
ANNX_INLINE V v_set(float x) { return _mm512_set1_ps(x); }
ANNX_INLINE V v_mul(V a, V b) { return _mm512_mul_ps(a, b); }
ANNX_INLINE V v_div(V a, V b) { return _mm512_div_ps(a, b); }
ANNX_INLINE V v_sqrt(V a) { return _mm512_sqrt_ps(a); }
// Lane by lane yes where x > 0, else no.
ANNX_INLINE V v_where_positive(V x, V yes, V no) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, v_zero(), _CMP_GT_OQ), no, yes);
}
ANNX_INLINE V v_numbers(const float* p) { return _mm512_loadu_ps(p); }
ANNX_INLINE V v_numbers(const std::int32_t* p) {
  return _mm512_cvtepi32_ps(_mm512_loadu_si512(p));
}
ANNX_INLINE void v_store(float* p, V a) { _mm512_storeu_ps(p, a); }
// The first n < 16 lanes.
ANNX_INLINE __mmask16 first_16(std::size_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
ANNX_INLINE void v_store_part(float* p, V a, std::size_t n) {
  _mm512_mask_storeu_ps(p, first_16(n), a);
}

// The fold of table.h: (l[j] + l[j+8]) + (l[j+16] + l[j+24]).
ANNX_INLINE __m256 fold_to_8(const V (&s)[kRegs]) {
  const __m256 a =
      _mm256_add_ps(_mm512_castps512_ps256(s[0]), _mm512_extractf32x8_ps(s[0], 1));
  const __m256 b =
      _mm256_add_ps(_mm512_castps512_ps256(s[1]), _mm512_extractf32x8_ps(s[1], 1));
  return _mm256_add_ps(a, b);
}
// Lanes 0-3 hold s4 of a, lanes 4-7 s4 of b.
ANNX_INLINE __m256 fold_to_4(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20),
                       _mm256_permute2f128_ps(a, b, 0x31));
}
// Rows share registers on the way down; each addition is that of one row's fold.
template <int R>
ANNX_INLINE void v_fold(const V (&s)[R][kRegs], float* out) {
  static_assert(R == 1 || R == 2 || R == 4);
  if constexpr (R == 1) {
    const __m256 s8 = fold_to_8(s[0]);
    const __m128 s4 =
        _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    out[0] = _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2))) + 0.0f;
  } else if constexpr (R == 2) {
    const __m256 s4 = fold_to_4(fold_to_8(s[0]), fold_to_8(s[1]));
    const __m256 s2 = _mm256_add_ps(s4, _mm256_permute_ps(s4, 0x4E));
    const __m256 sum =
        _mm256_add_ps(_mm256_add_ps(s2, _mm256_movehdup_ps(s2)), _mm256_setzero_ps());
    out[0] = _mm256_cvtss_f32(sum);
    out[1] = _mm_cvtss_f32(_mm256_extractf128_ps(sum, 1));
  } else {
    const __m256d ab = _mm256_castps_pd(fold_to_4(fold_to_8(s[0]), fold_to_8(s[1])));
    const __m256d cd = _mm256_castps_pd(fold_to_4(fold_to_8(s[2]), fold_to_8(s[3])));
    const __m256 s2 = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                                    _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
    const __m256 sum =
        _mm256_add_ps(_mm256_add_ps(s2, _mm256_movehdup_ps(s2)), _mm256_setzero_ps());
    const __m128 low = _mm256_castps256_ps128(sum);     // a . c .
    const __m128 high = _mm256_extractf128_ps(sum, 1);  // b . d .
    _mm_storeu_ps(out, _mm_unpacklo_ps(_mm_shuffle_ps(low, low, 0x88),
                                       _mm_shuffle_ps(high, high, 0x88)));
  }
}

// Rows' element types: `full` reads 16 elements, `part` elements i .. i + n, n < 16.
struct LoadF32 {
  static constexpr std::size_t kBytes = 4;
  static ANNX_INLINE V full(const std::byte* p) { return _mm512_loadu_ps(p); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return _mm512_maskz_loadu_ps(first_16(n), row + i * 4);
  }
  static ANNX_INLINE void store(std::byte* p, V a) { _mm512_storeu_ps(p, a); }
};
ANNX_INLINE __m256i words_full(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
ANNX_INLINE __m256i words_part(const std::byte* row, std::size_t i, std::size_t n) {
  return _mm256_maskz_loadu_epi16(first_16(n), row + i * 2);
}
struct LoadF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V full(const std::byte* p) {
    return _mm512_cvtph_ps(words_full(p));
  }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return _mm512_cvtph_ps(words_part(row, i, n));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
  }
};
struct LoadBF16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(__m256i words) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(words_full(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return widen(words_part(row, i, n));
  }
  static ANNX_INLINE void store(std::byte* p, V a) {
    const __m512i bits = _mm512_castps_si512(a);
    const __m512i odd =
        _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i even = _mm512_srli_epi32(
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
    const __m512i quiet =
        _mm512_or_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
    const __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    _mm256_storeu_si256(
        reinterpret_cast<__m256i*>(p),
        _mm512_cvtepi32_epi16(_mm512_mask_blend_epi32(nan, even, quiet)));
  }
};
struct LoadI16 {
  static constexpr std::size_t kBytes = 2;
  static ANNX_INLINE V widen(__m256i words) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(words));
  }
  static ANNX_INLINE V full(const std::byte* p) { return widen(words_full(p)); }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return widen(words_part(row, i, n));
  }
};
ANNX_INLINE __m128i bytes_part(const std::byte* row, std::size_t i, std::size_t n) {
  return _mm_maskz_loadu_epi8(first_16(n), row + i);
}
ANNX_INLINE __m128i bytes_full(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
struct LoadI8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V full(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes_full(p)));
  }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes_part(row, i, n)));
  }
};
struct LoadU8 {
  static constexpr std::size_t kBytes = 1;
  static ANNX_INLINE V full(const std::byte* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes_full(p)));
  }
  static ANNX_INLINE V part(const std::byte* row, std::size_t i, std::size_t n,
                            std::size_t) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes_part(row, i, n)));
  }
};

ANNX_INLINE void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// --- 8-bit sums, by VNNI -------------------------------------------------------------

inline constexpr std::size_t kByteStep = 64;
inline constexpr int kByteGroup = 4;
inline constexpr int kByteTileRows = 4;

using B = __m512i;
ANNX_INLINE B b_load(const std::byte* p) { return _mm512_loadu_si512(p); }
ANNX_INLINE __mmask64 first_64(std::size_t n) { return (__mmask64{1} << n) - 1u; }
ANNX_INLINE B b_part(const std::byte* row, std::size_t i, std::size_t n, std::size_t) {
  return _mm512_maskz_loadu_epi8(first_64(n), row + i);
}

using I = __m512i;
ANNX_INLINE I i_zero() { return _mm512_setzero_si512(); }
ANNX_INLINE __m256i i_half(I s) {
  return _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
}
template <int R>
ANNX_INLINE void i_fold(const I (&s)[R], std::int32_t* out) {
  static_assert(R == 1 || R == 4);
  if constexpr (R == 1) {
    const __m256i h = i_half(s[0]);
    __m128i t =
        _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    t = _mm_add_epi32(t, _mm_unpackhi_epi64(t, t));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 1));
    out[0] = _mm_cvtsi128_si32(t);
  } else {
    const __m256i t = _mm256_hadd_epi32(_mm256_hadd_epi32(i_half(s[0]), i_half(s[1])),
                                        _mm256_hadd_epi32(i_half(s[2]), i_half(s[3])));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out),
        _mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1)));
  }
}

ANNX_INLINE B flip_signs(B x) { return _mm512_xor_si512(x, _mm512_set1_epi8(-128)); }
struct I8 {
  static constexpr bool kSigned = true;
};
struct U8 {
  static constexpr bool kSigned = false;
};

struct NoShared {
  ANNX_INLINE void add(B) {}
  ANNX_INLINE I finish(I s) const { return s; }
};

// |q - x| as bytes, widened to words by place, then squared and summed in pairs.
template <class T>
struct ByteL2 {
  using Query = B;
  using Row = B;
  using Shared = NoShared;
  static ANNX_INLINE B query(B b) { return b; }
  static ANNX_INLINE B row(B b) { return b; }
  static ANNX_INLINE I add(B q, B x, I s) {
    const B d = T::kSigned
                    ? _mm512_sub_epi8(_mm512_max_epi8(q, x), _mm512_min_epi8(q, x))
                    : _mm512_sub_epi8(_mm512_max_epu8(q, x), _mm512_min_epu8(q, x));
    const B even = _mm512_and_si512(d, _mm512_set1_epi16(255));
    const B odd = _mm512_srli_epi16(d, 8);
    return _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(s, even, even), odd, odd);
  }
};

// VNNI multiplies unsigned by signed bytes. With ^ for a flipped sign bit, that is an
// added 128 (int8 to unsigned) or a taken 128 (uint8 to signed):
//   int8:  <x^, q> = <x, q> + 128 sum q;    uint8: <q, x^> = <q, x> - 128 sum q.
// The sum over the query is added up once for a group of rows. A tail's zeros in the
// query make its lanes vanish, whatever x^ is there.
template <class T>
struct ByteDot {
  using Query = B;
  using Row = B;
  struct Shared {
    I sum = _mm512_setzero_si512();
    // 64 is the largest power of two in a signed byte; `finish` takes it twice.
    ANNX_INLINE void add(B q) {
      sum = T::kSigned ? _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(64), q)
                       : _mm512_dpbusd_epi32(sum, q, _mm512_set1_epi8(64));
    }
    ANNX_INLINE I finish(I s) const {
      const I twice = _mm512_add_epi32(sum, sum);
      return T::kSigned ? _mm512_sub_epi32(s, twice) : _mm512_add_epi32(s, twice);
    }
  };
  static ANNX_INLINE B query(B b) { return b; }
  static ANNX_INLINE B row(B b) { return flip_signs(b); }
  static ANNX_INLINE I add(B q, B x, I s) {
    return T::kSigned ? _mm512_dpbusd_epi32(s, x, q) : _mm512_dpbusd_epi32(s, q, x);
  }
};

template <class T>
struct ByteL1 {
  using Query = B;
  using Row = B;
  using Shared = NoShared;
  static ANNX_INLINE B as_unsigned(B b) { return T::kSigned ? flip_signs(b) : b; }
  static ANNX_INLINE B query(B b) { return as_unsigned(b); }
  static ANNX_INLINE B row(B b) { return as_unsigned(b); }
  static ANNX_INLINE I add(B q, B x, I s) {
    return _mm512_add_epi32(s, _mm512_sad_epu8(q, x));
  }
};

// --- bits ----------------------------------------------------------------------------

ANNX_INLINE std::uint64_t word_at(const std::byte* p) {
  std::uint64_t x;
  ANNX_MEMCPY(&x, p, 8);
  return x;
}
ANNX_INLINE std::uint32_t word_bits(std::uint64_t w) {
  return static_cast<std::uint32_t>(_mm_popcnt_u64(w));
}
ANNX_INLINE std::uint32_t fold_longs(__m512i s) {
  return static_cast<std::uint32_t>(_mm512_reduce_add_epi64(s));
}

ANNX_INLINE std::uint32_t bits_xor(const std::byte* a, const std::byte* b,
                                   std::size_t bytes) {
  __m512i sum = _mm512_setzero_si512();
  std::size_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    sum = _mm512_add_epi64(
        sum, _mm512_popcnt_epi64(_mm512_xor_si512(b_load(a + i), b_load(b + i))));
  }
  if (i < bytes) {
    const B x = b_part(a, i, bytes - i, bytes);
    const B y = b_part(b, i, bytes - i, bytes);
    sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(x, y)));
  }
  return fold_longs(sum);
}
ANNX_INLINE void bits_and_or(const std::byte* a, const std::byte* b, std::size_t bytes,
                             std::uint32_t* both, std::uint32_t* any) {
  __m512i sum = _mm512_setzero_si512();
  __m512i sum_any = sum;
  for (std::size_t i = 0; i < bytes; i += 64) {
    const std::size_t n = bytes - i;
    const B x = n >= 64 ? b_load(a + i) : b_part(a, i, n, bytes);
    const B y = n >= 64 ? b_load(b + i) : b_part(b, i, n, bytes);
    sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_and_si512(x, y)));
    sum_any = _mm512_add_epi64(sum_any, _mm512_popcnt_epi64(_mm512_or_si512(x, y)));
  }
  *both = fold_longs(sum);
  *any = fold_longs(sum_any);
}

// --- tiles: registers of float32 and what tile.inc.h does with them ------------------

inline constexpr std::size_t kTileLanes = 16;
// 24 sums, 2 of a row panel and 1 query element of the 32 registers.
inline constexpr std::size_t kTileQueries = 12;
inline constexpr std::size_t kTileRegs = 2;

using Lanes = __m512;
using LessMask = __mmask16;
ANNX_INLINE V v_splat(float x) { return _mm512_set1_ps(x); }
ANNX_INLINE Lanes lanes_set(float x) { return _mm512_set1_ps(x); }
ANNX_INLINE Lanes lanes_load(const float* p) { return _mm512_loadu_ps(p); }
ANNX_INLINE void lanes_store(float* p, Lanes a) { _mm512_storeu_ps(p, a); }
ANNX_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c) {
  return _mm512_fmadd_ps(a, b, c);
}
ANNX_INLINE LessMask lanes_less(Lanes a, Lanes b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
ANNX_INLINE LessMask less_none() { return 0; }
ANNX_INLINE LessMask less_or(LessMask a, LessMask b) {
  return static_cast<LessMask>(a | b);
}
ANNX_INLINE std::uint32_t less_bits(LessMask m) { return m; }
ANNX_INLINE Lanes less_pick(LessMask m, Lanes yes, Lanes no) {
  return _mm512_mask_blend_ps(m, no, yes);
}
ANNX_INLINE Lanes lanes_add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
ANNX_INLINE Lanes lanes_sub(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
ANNX_INLINE Lanes lanes_min(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
ANNX_INLINE Lanes lanes_max(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
// The bits of a where `keep` has them, and those of b.
ANNX_INLINE Lanes lanes_tag(Lanes a, Lanes keep, Lanes b) {
  return _mm512_or_ps(_mm512_and_ps(a, keep), b);
}
// The first n < 16 numbers from p on, the other lanes 0.
ANNX_INLINE Lanes lanes_part(const float* p, std::size_t n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1u), p);
}
// Rows become columns.
ANNX_INLINE void lanes_turn(Lanes (&x)[kTileLanes]) {
  Lanes a[16];
  ANNX_UNROLL
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
  // b[4 q + e], 128-bit lane l: element 4 l + e of the rows 4 q to 4 q + 3.
  Lanes b[16];
  ANNX_UNROLL
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xEE);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
  }
  ANNX_UNROLL
  for (int i = 0; i < 4; ++i) {
    const Lanes even0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
    const Lanes even1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    const Lanes odd0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xDD);
    const Lanes odd1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xDD);
    x[i] = _mm512_shuffle_f32x4(even0, even1, 0x88);
    x[i + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
    x[i + 8] = _mm512_shuffle_f32x4(even0, even1, 0xDD);
    x[i + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xDD);
  }
}

}  // namespace
}  // namespace annx::kernels::avx512

// --- codes of links ------------------------------------------------------------------
namespace annx::kernels::avx512 {
namespace {

// Lanes i and i ^ h exchanged, h a power of two below kTileLanes.
ANNX_INLINE Lanes lanes_partner(Lanes a, std::size_t h) {
  if (h == 1) return _mm512_permute_ps(a, 0xB1);
  if (h == 2) return _mm512_permute_ps(a, 0x4E);
  if (h == 4) return _mm512_shuffle_f32x4(a, a, 0xB1);
  return _mm512_shuffle_f32x4(a, a, 0x4E);
}

// sums[i] = sum over parts p of tables[p * 16 + code of row i in part p]. A register
// holds four parts: two in its lower half, two in its upper.
ANNX_INLINE void piece_sums(const std::uint8_t* codes, std::size_t parts,
                            const std::uint8_t* tables, std::int32_t* sums) {
  const __m512i nibble = _mm512_set1_epi8(15);
  // Two entries of 127 fit a byte. Bytes are added up in pairs, as 16-bit words; the
  // odd ones are added again by themselves and taken off at the end.
  __m512i all = _mm512_setzero_si512();
  __m512i odd = _mm512_setzero_si512();
  for (std::size_t p = 0; p < parts; p += 4) {
    const __m512i x = _mm512_loadu_si512(codes + p * 16);
    const __m512i four = _mm512_loadu_si512(tables + p * 16);
    const __m512i low = _mm512_and_si512(x, nibble);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble);
    const __m512i two = _mm512_add_epi8(
        _mm512_shuffle_epi8(_mm512_shuffle_i32x4(four, four, 0xA0), low),
        _mm512_shuffle_epi8(_mm512_shuffle_i32x4(four, four, 0xF5), high));
    all = _mm512_add_epi16(all, two);
    odd = _mm512_add_epi16(odd, _mm512_srli_epi16(two, 8));
  }
  const __m512i evens = _mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8));
  const __m256i even = _mm256_add_epi16(_mm512_castsi512_si256(evens),
                                        _mm512_extracti64x4_epi64(evens, 1));
  const __m256i odds =
      _mm256_add_epi16(_mm512_castsi512_si256(odd), _mm512_extracti64x4_epi64(odd, 1));
  const __m256i a = _mm256_unpacklo_epi16(even, odds);  // codes 0-7, 16-23
  const __m256i b = _mm256_unpackhi_epi16(even, odds);  // codes 8-15, 24-31
  _mm512_storeu_si512(sums,
                      _mm512_cvtepu16_epi32(_mm256_permute2x128_si256(a, b, 0x20)));
  _mm512_storeu_si512(sums + 16,
                      _mm512_cvtepu16_epi32(_mm256_permute2x128_si256(a, b, 0x31)));
}
// The same for two groups, `stride` bytes apart.
ANNX_INLINE void piece_sums_pair(const std::uint8_t* codes, std::size_t stride,
                                 std::size_t parts, const std::uint8_t* tables,
                                 std::int32_t* sums, std::size_t /*ahead*/) {
  piece_sums(codes, parts, tables, sums);
  piece_sums(codes + stride, parts, tables, sums + kPieceGroup);
}

}  // namespace
}  // namespace annx::kernels::avx512
