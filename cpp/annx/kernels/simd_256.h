// SPDX-License-Identifier: Apache-2.0
// Sums of table entries by 256-bit registers, for AVX2 and AVX-512 alike: a group of
// links is read from memory in order, and that is what takes the time. Included after
// simd_avx2.h or simd_avx512.h.
#pragma once

namespace annx::kernels::ANNX_ISA_NS {
namespace {

// sums[i] = sum over parts p of tables[p * 16 + code of link i in part p].
ANNX_INLINE void link_sums(const std::uint8_t* codes, std::size_t parts,
                           const std::uint8_t* tables, const LinkAhead& ahead,
                           std::int32_t* sums) {
  const auto load = [](const std::uint8_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  };
  const __m256i nibble = _mm256_set1_epi8(15);
  // Two entries of 127 fit a byte. Bytes are added up in pairs, as 16-bit words; the
  // odd ones are added again by themselves and taken off at the end.
  __m256i all = _mm256_setzero_si256();
  __m256i odd = _mm256_setzero_si256();
  const auto four_parts = [&](std::size_t p) {
    const __m256i x = load(codes + p * 8);
    const __m256i low = _mm256_and_si256(x, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble);
    const __m256i two =
        _mm256_add_epi8(_mm256_shuffle_epi8(load(tables + p * 16), low),
                        _mm256_shuffle_epi8(load(tables + p * 16 + 32), high));
    all = _mm256_add_epi16(all, two);
    odd = _mm256_add_epi16(odd, _mm256_srli_epi16(two, 8));
  };
  std::size_t p = 0;
  for (const std::size_t end = ahead.lines * 8; p < end && p + 8 <= parts; p += 8) {
    prefetch(ahead.codes + p * 8);
    prefetch(ahead.row + p * 8);
    four_parts(p);
    four_parts(p + 4);
  }
  for (; p < parts; p += 4) four_parts(p);
  const __m256i even = _mm256_sub_epi16(all, _mm256_slli_epi16(odd, 8));
  // Either half has half of the parts.
  const auto store = [&](std::int32_t* at, __m256i words) {
    const __m128i whole = _mm_add_epi16(_mm256_castsi256_si128(words),
                                        _mm256_extracti128_si256(words, 1));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), _mm256_cvtepu16_epi32(whole));
  };
  store(sums, _mm256_unpacklo_epi16(even, odd));      // links 0 to 7
  store(sums + 8, _mm256_unpackhi_epi16(even, odd));  // links 8 to 15
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
