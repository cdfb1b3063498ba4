// SPDX-License-Identifier: Apache-2.0
// The primitive operations for AVX2 with FMA and F16C. Included by isa_avx2.cpp alone.
#pragma once

#include <immintrin.h>

namespace annx::kernels::avx2 {

// 32 float lanes in four registers: lane i is element i % 8 of register i / 8.
struct F32 {
  __m256 v[4];
};

inline F32 f32_zero() {
  const __m256 z = _mm256_setzero_ps();
  return {{z, z, z, z}};
}

// Sixteen words of which a window of eight, starting at 8 - n, sets the first n lanes.
alignas(32) inline constexpr std::int32_t kMaskWindow[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                             0,  0,  0,  0,  0,  0,  0,  0};

struct LoadF32 {
  static constexpr std::size_t kBytes = 4;
  static __m256 full(const std::byte* p) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  }
  static __m256 part(const std::byte* p, std::size_t n) {
    const __m256i mask =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMaskWindow + 8 - n));
    return _mm256_maskload_ps(reinterpret_cast<const float*>(p), mask);
  }
};

// Up to seven 16-bit words, zero-filled, without reading past them.
inline __m128i load_words(const std::byte* p, std::size_t n) {
  std::uint16_t words[8] = {};
  __builtin_memcpy(words, p, n * 2);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
}

struct LoadF16 {
  static constexpr std::size_t kBytes = 2;
  static __m256 full(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256 part(const std::byte* p, std::size_t n) {
    return _mm256_cvtph_ps(load_words(p, n));
  }
};

struct LoadBF16 {
  static constexpr std::size_t kBytes = 2;
  static __m256 widen(__m128i words) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
  }
  static __m256 full(const std::byte* p) {
    return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static __m256 part(const std::byte* p, std::size_t n) { return widen(load_words(p, n)); }
};

template <class L>
inline F32 f32_load(const std::byte* p) {
  return {{L::full(p), L::full(p + 8 * L::kBytes), L::full(p + 16 * L::kBytes),
           L::full(p + 24 * L::kBytes)}};
}
template <class L>
inline F32 f32_load_n(const std::byte* p, std::size_t n) {
  F32 r = f32_zero();
  std::size_t i = 0;
  for (; n >= 8; ++i, n -= 8) r.v[i] = L::full(p + i * 8 * L::kBytes);
  if (n != 0) r.v[i] = L::part(p + i * 8 * L::kBytes, n);
  return r;
}
inline F32 f32_sub(F32 a, F32 b) {
  return {{_mm256_sub_ps(a.v[0], b.v[0]), _mm256_sub_ps(a.v[1], b.v[1]),
           _mm256_sub_ps(a.v[2], b.v[2]), _mm256_sub_ps(a.v[3], b.v[3])}};
}
inline F32 f32_add(F32 a, F32 b) {
  return {{_mm256_add_ps(a.v[0], b.v[0]), _mm256_add_ps(a.v[1], b.v[1]),
           _mm256_add_ps(a.v[2], b.v[2]), _mm256_add_ps(a.v[3], b.v[3])}};
}
inline F32 f32_abs(F32 a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {{_mm256_andnot_ps(sign, a.v[0]), _mm256_andnot_ps(sign, a.v[1]),
           _mm256_andnot_ps(sign, a.v[2]), _mm256_andnot_ps(sign, a.v[3])}};
}
inline F32 f32_fma(F32 a, F32 b, F32 c) {
  return {{_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1]),
           _mm256_fmadd_ps(a.v[2], b.v[2], c.v[2]),
           _mm256_fmadd_ps(a.v[3], b.v[3], c.v[3])}};
}
inline float f32_fold(F32 a) {
  const __m256 s8 = _mm256_add_ps(_mm256_add_ps(a.v[0], a.v[1]),
                                  _mm256_add_ps(a.v[2], a.v[3]));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}

// Sums of 8-bit terms in int32.
struct I32 {
  __m256i v;
};
inline I32 i32_zero() { return {_mm256_setzero_si256()}; }
inline std::int32_t i32_fold(I32 a) {
  __m128i s =
      _mm_add_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 1));
  return _mm_cvtsi128_si32(s);
}

struct LoadI8 {
  static __m256i widen(__m128i bytes) { return _mm256_cvtepi8_epi16(bytes); }
};
struct LoadU8 {
  static __m256i widen(__m128i bytes) { return _mm256_cvtepu8_epi16(bytes); }
};

inline __m128i load_bytes(const std::byte* p, std::size_t n) {
  if (n >= 16) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  std::byte bytes[16] = {};
  __builtin_memcpy(bytes, p, n);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
}

template <class Term>
inline I32 i32_terms(const std::byte* a, const std::byte* b, std::size_t n, I32 s,
                     Term term) {
  for (std::size_t i = 0; i < n; i += 16) {
    s.v = _mm256_add_epi32(s.v, term(load_bytes(a + i, n - i), load_bytes(b + i, n - i)));
  }
  return s;
}
template <class L>
inline I32 i32_l2(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  return i32_terms(a, b, n, s, [](__m128i x, __m128i y) {
    const __m256i d = _mm256_sub_epi16(L::widen(x), L::widen(y));
    return _mm256_madd_epi16(d, d);
  });
}
template <class L>
inline I32 i32_dot(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  return i32_terms(a, b, n, s, [](__m128i x, __m128i y) {
    return _mm256_madd_epi16(L::widen(x), L::widen(y));
  });
}
template <class L>
inline I32 i32_l1(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  return i32_terms(a, b, n, s, [](__m128i x, __m128i y) {
    const __m256i d = _mm256_abs_epi16(_mm256_sub_epi16(L::widen(x), L::widen(y)));
    return _mm256_madd_epi16(d, _mm256_set1_epi16(1));
  });
}

}  // namespace annx::kernels::avx2
