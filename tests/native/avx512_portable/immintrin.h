// SPDX-License-Identifier: Apache-2.0
// AVX-512 intrinsics on a processor that has AVX2 alone: found before the compiler's
// own <immintrin.h>, so that cpp/annx/kernels/isa_avx512.cpp runs as it stands
// (-DANNX_AVX512_PORTABLE=ON, .ci/emulate.sh). Every 512-bit operation goes to SIMDe's
// version (https://github.com/simd-everywhere/simde, 0.7.4 or later: written by others
// from the same manual); those that it lacks are below, as plain loops over the
// elements, from the definitions in the Intel Intrinsics Guide. Masked loads and stores
// touch no masked byte, so the guard pages of test_kernels.cpp prove what they prove
// elsewhere. Slow, and for tests alone.
#pragma once
#pragma GCC system_header  // include_next is an extension

#include_next <immintrin.h>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

namespace annx::test::portable {

// A register as its elements.
template <class Element, std::size_t kCount>
struct Elements {
  Element at[kCount];
};
template <class Element, class Register>
auto elements(const Register& a) {
  Elements<Element, sizeof(Register) / sizeof(Element)> e;
  static_assert(sizeof e == sizeof a);
  __builtin_memcpy(&e, &a, sizeof e);
  return e;
}
template <class Register, class Element, std::size_t kCount>
Register as_register(const Elements<Element, kCount>& e) {
  Register a;
  static_assert(sizeof e == sizeof a);
  __builtin_memcpy(&a, &e, sizeof a);
  return a;
}

// dst[i] = Target(a[i])
template <class Target, class Source, class Register, class From>
Register converted(const From& a) {
  const auto from = elements<Source>(a);
  Elements<Target, sizeof(Register) / sizeof(Target)> to;
  static_assert(sizeof from.at / sizeof(Source) == sizeof to.at / sizeof(Target));
  for (std::size_t i = 0; i < sizeof to.at / sizeof(Target); ++i) {
    to.at[i] = static_cast<Target>(from.at[i]);
  }
  return as_register<Register>(to);
}
inline __m512 cvtepi32_ps(__m512i a) {
  return converted<float, std::int32_t, __m512>(a);
}
inline __m512i cvtepu16_epi32(__m256i a) {
  return converted<std::uint32_t, std::uint16_t, __m512i>(a);
}
inline __m512i cvtepi16_epi32(__m256i a) {
  return converted<std::int32_t, std::int16_t, __m512i>(a);
}
inline __m512i cvtepu8_epi32(__m128i a) {
  return converted<std::uint32_t, std::uint8_t, __m512i>(a);
}
inline __m512i cvtepi8_epi32(__m128i a) {
  return converted<std::int32_t, std::int8_t, __m512i>(a);
}
inline __m256i cvtepi32_epi16(__m512i a) {
  return converted<std::uint16_t, std::uint32_t, __m256i>(a);
}

// Half-precision words by F16C's own instruction, one half of the register at a time.
inline __m512 cvtph_ps(__m256i a) {
  const auto words = elements<std::uint16_t>(a);
  Elements<float, 16> to;
  for (int half = 0; half < 2; ++half) {
    __m128i eight;
    __builtin_memcpy(&eight, words.at + 8 * half, 16);
    const __m256 x = _mm256_cvtph_ps(eight);
    __builtin_memcpy(to.at + 8 * half, &x, 32);
  }
  return as_register<__m512>(to);
}
template <int kRounding>
__m256i cvtps_ph(__m512 a) {
  const auto from = elements<float>(a);
  Elements<std::uint16_t, 16> words;
  for (int half = 0; half < 2; ++half) {
    __m256 eight;
    __builtin_memcpy(&eight, from.at + 8 * half, 32);
    const __m128i x = _mm256_cvtps_ph(eight, kRounding);
    __builtin_memcpy(words.at + 8 * half, &x, 16);
  }
  return as_register<__m256i>(words);
}

// Element i is read or written only where bit i of the mask is set.
template <class Register, class Element>
Register maskz_loadu(std::uint64_t mask, const void* p) {
  Elements<Element, sizeof(Register) / sizeof(Element)> e = {};
  for (std::size_t i = 0; i < sizeof e.at / sizeof(Element); ++i) {
    if ((mask >> i & 1) != 0) {
      __builtin_memcpy(&e.at[i], static_cast<const Element*>(p) + i, sizeof(Element));
    }
  }
  return as_register<Register>(e);
}
inline void mask_storeu_ps(void* p, std::uint64_t mask, __m512 a) {
  const auto e = elements<float>(a);
  for (std::size_t i = 0; i < 16; ++i) {
    if ((mask >> i & 1) != 0) __builtin_memcpy(static_cast<float*>(p) + i, &e.at[i], 4);
  }
}

// Within each 128-bit lane: dst[j] = a[(imm >> 2 j) & 3].
inline __m512 permute_ps(__m512 a, unsigned imm) {
  const auto from = elements<float>(a);
  Elements<float, 16> to;
  for (unsigned i = 0; i < 16; ++i) {
    to.at[i] = from.at[i / 4 * 4 + (imm >> (i % 4 * 2) & 3)];
  }
  return as_register<__m512>(to);
}
// 128-bit lanes: two of a, then two of b, each named by two bits of imm.
inline __m512 shuffle_f32x4(__m512 a, __m512 b, unsigned imm) {
  const auto x = elements<float>(a);
  const auto y = elements<float>(b);
  Elements<float, 16> to;
  for (unsigned lane = 0; lane < 4; ++lane) {
    const unsigned from = imm >> (lane * 2) & 3;
    for (unsigned j = 0; j < 4; ++j) {
      to.at[lane * 4 + j] = (lane < 2 ? x : y).at[from * 4 + j];
    }
  }
  return as_register<__m512>(to);
}
inline __m256 extractf32x8_ps(__m512 a, int imm) {
  const auto from = elements<float>(a);
  Elements<float, 8> to;
  __builtin_memcpy(to.at, from.at + 8 * (imm & 1), sizeof to.at);
  return as_register<__m256>(to);
}

inline std::int64_t reduce_add_epi64(__m512i a) {
  const auto e = elements<std::uint64_t>(a);
  std::uint64_t sum = 0;
  for (const std::uint64_t x : e.at) sum += x;
  return static_cast<std::int64_t>(sum);
}

}  // namespace annx::test::portable

// Some of the compiler's own are macros, where it does not optimise.
#undef _mm512_cvtepi32_ps
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepi16_epi32
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepi8_epi32
#undef _mm512_cvtepi32_epi16
#undef _mm512_cvtph_ps
#undef _mm512_cvtps_ph
#undef _mm512_maskz_loadu_ps
#undef _mm512_maskz_loadu_epi8
#undef _mm256_maskz_loadu_epi16
#undef _mm_maskz_loadu_epi8
#undef _mm512_mask_storeu_ps
#undef _mm512_permute_ps
#undef _mm512_shuffle_f32x4
#undef _mm512_extractf32x8_ps
#undef _mm512_reduce_add_epi64
#define _mm512_cvtepi32_ps(a) ::annx::test::portable::cvtepi32_ps(a)
#define _mm512_cvtepu16_epi32(a) ::annx::test::portable::cvtepu16_epi32(a)
#define _mm512_cvtepi16_epi32(a) ::annx::test::portable::cvtepi16_epi32(a)
#define _mm512_cvtepu8_epi32(a) ::annx::test::portable::cvtepu8_epi32(a)
#define _mm512_cvtepi8_epi32(a) ::annx::test::portable::cvtepi8_epi32(a)
#define _mm512_cvtepi32_epi16(a) ::annx::test::portable::cvtepi32_epi16(a)
#define _mm512_cvtph_ps(a) ::annx::test::portable::cvtph_ps(a)
#define _mm512_cvtps_ph(a, imm) ::annx::test::portable::cvtps_ph<imm>(a)
#define _mm512_maskz_loadu_ps(k, p) \
  ::annx::test::portable::maskz_loadu<__m512, float>(k, p)
#define _mm512_maskz_loadu_epi8(k, p) \
  ::annx::test::portable::maskz_loadu<__m512i, std::uint8_t>(k, p)
#define _mm256_maskz_loadu_epi16(k, p) \
  ::annx::test::portable::maskz_loadu<__m256i, std::uint16_t>(k, p)
#define _mm_maskz_loadu_epi8(k, p) \
  ::annx::test::portable::maskz_loadu<__m128i, std::uint8_t>(k, p)
#define _mm512_mask_storeu_ps(p, k, a) ::annx::test::portable::mask_storeu_ps(p, k, a)
#define _mm512_permute_ps(a, imm) ::annx::test::portable::permute_ps(a, imm)
#define _mm512_shuffle_f32x4(a, b, imm) ::annx::test::portable::shuffle_f32x4(a, b, imm)
#define _mm512_extractf32x8_ps(a, imm) ::annx::test::portable::extractf32x8_ps(a, imm)
#define _mm512_reduce_add_epi64(a) ::annx::test::portable::reduce_add_epi64(a)
