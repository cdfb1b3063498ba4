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
  const bool codes_longer = ahead.code_lines > ahead.row_lines;
  const std::size_t longer = 8 * (codes_longer ? ahead.code_lines : ahead.row_lines);
  const std::size_t both = 8 * (codes_longer ? ahead.row_lines : ahead.code_lines);
  const std::byte* const rest = codes_longer ? ahead.codes : ahead.row;
  for (; p < both && p + 8 <= parts; p += 8) {
    prefetch(ahead.codes + p * 8);
    prefetch(ahead.row + p * 8);
    four_parts(p);
    four_parts(p + 4);
  }
  for (; p < longer && p + 8 <= parts; p += 8) {
    prefetch(rest + p * 8);
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

#define ANNX_PANEL_BYTES
// out[part][level] = the level's sum less the part's least, times scale, to the
// nearest.
ANNX_INLINE void panel_bytes(const float* sums, const float* leasts, float scale,
                             std::uint8_t* out) {
  // Bytes of four levels, which come level by level, in order of parts.
  const __m256i by_part = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  for (std::size_t at = 0; at < kLinkPanel; at += 8) {
    const __m256 least = _mm256_loadu_ps(leasts + at);
    const auto level = [&](std::size_t c) {
      const __m256 above =
          _mm256_sub_ps(_mm256_loadu_ps(sums + c * kLinkPanel + at), least);
      return _mm256_cvttps_epi32(
          _mm256_fmadd_ps(above, _mm256_set1_ps(scale), _mm256_set1_ps(0.5f)));
    };
    const auto four = [&](std::size_t c) {
      const __m256i bytes =
          _mm256_packus_epi16(_mm256_packs_epi32(level(c), level(c + 1)),
                              _mm256_packs_epi32(level(c + 2), level(c + 3)));
      return _mm256_shuffle_epi8(bytes, by_part);
    };
    const __m256i a = four(0);
    const __m256i b = four(4);
    const __m256i c = four(8);
    const __m256i d = four(12);
    const __m256i two[4] = {_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d),
                            _mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)};
    // Parts i and i + 4.
    const auto store = [&](std::size_t i, __m256i parts) {
      auto* const to = reinterpret_cast<__m128i*>(out) + at + i;
      _mm_storeu_si128(to, _mm256_castsi256_si128(parts));
      _mm_storeu_si128(to + 4, _mm256_extracti128_si256(parts, 1));
    };
    store(0, _mm256_unpacklo_epi64(two[0], two[1]));
    store(1, _mm256_unpackhi_epi64(two[0], two[1]));
    store(2, _mm256_unpacklo_epi64(two[2], two[3]));
    store(3, _mm256_unpackhi_epi64(two[2], two[3]));
  }
}

}  // namespace
}  // namespace annx::kernels::ANNX_ISA_NS
