// SPDX-License-Identifier: Apache-2.0
// The primitive operations in plain C++: what the others must agree with, bit for bit.
// Included by isa_scalar.cpp alone.
#pragma once

namespace annx::kernels::scalar {
namespace {

// All 32 float lanes in one register.
inline constexpr int kWidth = 32;
inline constexpr int kRegs = 1;
inline constexpr int kFloatGroup = 1;

struct V {
  float v[32];
};

inline V v_zero() { return {}; }

template <class F>
ANNX_INLINE V v_map(F f) {
  V r;
  for (int i = 0; i < 32; ++i) r.v[i] = f(i);
  return r;
}
inline V v_add(const V& a, const V& b) {
  return v_map([&](int i) { return a.v[i] + b.v[i]; });
}
inline V v_sub(const V& a, const V& b) {
  return v_map([&](int i) { return a.v[i] - b.v[i]; });
}
inline V v_abs(const V& a) {
  return v_map([&](int i) { return ANNX_FABSF(a.v[i]); });
}
inline V v_fma(const V& a, const V& b, const V& c) {
  return v_map([&](int i) { return ANNX_FMAF(a.v[i], b.v[i], c.v[i]); });
}
inline V v_set(float x) {
  return v_map([&](int) { return x; });
}
inline V v_mul(const V& a, const V& b) {
  return v_map([&](int i) { return a.v[i] * b.v[i]; });
}
inline V v_div(const V& a, const V& b) {
  return v_map([&](int i) { return a.v[i] / b.v[i]; });
}
inline V v_sqrt(const V& a) {
  return v_map([&](int i) { return ANNX_SQRTF(a.v[i]); });
}
// Lane by lane yes where x > 0, else no.
inline V v_where_positive(const V& x, const V& yes, const V& no) {
  return v_map([&](int i) { return x.v[i] > 0.0f ? yes.v[i] : no.v[i]; });
}
// Floats, or int32 converted.
template <class T>
inline V v_numbers(const T* p) {
  return v_map([&](int i) { return static_cast<float>(p[i]); });
}
inline void v_store_part(float* p, const V& a, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) p[i] = a.v[i];
}
inline void v_store(float* p, const V& a) { v_store_part(p, a, 32); }

template <int R>
inline void v_fold(const V (&s)[R][kRegs], float* out) {
  for (int r = 0; r < R; ++r) {
    const float* l = s[r][0].v;
    float s8[8];
    for (int j = 0; j < 8; ++j) s8[j] = (l[j] + l[j + 8]) + (l[j + 16] + l[j + 24]);
    float s4[4];
    for (int j = 0; j < 4; ++j) s4[j] = s8[j] + s8[j + 4];
    out[r] = ((s4[0] + s4[2]) + (s4[1] + s4[3])) + 0.0f;
  }
}

inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  std::uint32_t exponent = (h >> 10) & 31u;
  std::uint32_t mantissa = h & 1023u;
  std::uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7F800000u | (mantissa << 13);
    if (mantissa != 0) bits |= 0x400000u;  // a NaN becomes a quiet one
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
  } else if (mantissa == 0) {
    bits = sign;
  } else {
    exponent = 113;
    while ((mantissa & 1024u) == 0) {
      mantissa <<= 1;
      --exponent;
    }
    bits = sign | (exponent << 23) | ((mantissa & 1023u) << 13);
  }
  return __builtin_bit_cast(float, bits);
}

inline std::uint16_t half_from_float(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t size = bits & 0x7FFFFFFFu;
  std::uint32_t half;
  if (size > 0x7F800000u) {  // NaN: quiet, the top of its payload kept
    half = 0x7E00u | ((size >> 13) & 0x3FFu);
  } else if (size >= 0x477FF000u) {  // rounds to 65536 or more
    half = 0x7C00u;
  } else if (size >= 0x38800000u) {  // normal: round at bit 13, the carry may move up
    half = (size - 0x38000000u + 0xFFFu + ((size >> 13) & 1u)) >> 13;
  } else if (size > 0x33000000u) {  // subnormal: the whole mantissa moves down
    const std::uint32_t shift = 126u - (size >> 23);
    const std::uint32_t mantissa = (size & 0x7FFFFFu) | 0x800000u;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
    const std::uint32_t middle = 1u << (shift - 1u);
    half = mantissa >> shift;
    if (rest > middle || (rest == middle && (half & 1u) != 0)) ++half;
  } else {
    half = 0;
  }
  return static_cast<std::uint16_t>(sign | half);
}

inline float bfloat_to_float(std::uint16_t b) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(b) << 16);
}

inline std::uint16_t bfloat_from_float(float x) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// What the rows' element types share: `at` reads one element.
template <class L>
struct Loads {
  static V full(const std::byte* p) { return part(p, 0, 32, 32); }
  // Elements i .. i + n of a row of `dim`; the other lanes are zero.
  static V part(const std::byte* row, std::size_t i, std::size_t n, std::size_t) {
    V r = v_zero();
    for (std::size_t j = 0; j < n; ++j) r.v[j] = L::at(row + (i + j) * L::kBytes);
    return r;
  }
};
template <class T>
inline T read(const std::byte* p) {
  T x;
  ANNX_MEMCPY(&x, p, sizeof(T));
  return x;
}

struct LoadF32 : Loads<LoadF32> {
  static constexpr std::size_t kBytes = 4;
  static float at(const std::byte* p) { return read<float>(p); }
  static void store(std::byte* p, const V& a) { ANNX_MEMCPY(p, a.v, sizeof(a.v)); }
};
struct LoadF16 : Loads<LoadF16> {
  static constexpr std::size_t kBytes = 2;
  static float at(const std::byte* p) { return half_to_float(read<std::uint16_t>(p)); }
  static void store(std::byte* p, const V& a) {
    for (int i = 0; i < 32; ++i) {
      const std::uint16_t half = half_from_float(a.v[i]);
      ANNX_MEMCPY(p + i * 2, &half, 2);
    }
  }
};
struct LoadBF16 : Loads<LoadBF16> {
  static constexpr std::size_t kBytes = 2;
  static float at(const std::byte* p) {
    return bfloat_to_float(read<std::uint16_t>(p));
  }
  static void store(std::byte* p, const V& a) {
    for (int i = 0; i < 32; ++i) {
      const std::uint16_t half = bfloat_from_float(a.v[i]);
      ANNX_MEMCPY(p + i * 2, &half, 2);
    }
  }
};
struct LoadI16 : Loads<LoadI16> {
  static constexpr std::size_t kBytes = 2;
  static float at(const std::byte* p) {
    return static_cast<float>(read<std::int16_t>(p));
  }
};
struct LoadI8 : Loads<LoadI8> {
  static constexpr std::size_t kBytes = 1;
  static float at(const std::byte* p) {
    return static_cast<float>(static_cast<std::int8_t>(*p));
  }
};
struct LoadU8 : Loads<LoadU8> {
  static constexpr std::size_t kBytes = 1;
  static float at(const std::byte* p) {
    return static_cast<float>(static_cast<std::uint8_t>(*p));
  }
};

// --- 8-bit: one byte a step ----------------------------------------------------------

inline constexpr std::size_t kByteStep = 1;
inline constexpr int kByteGroup = 1;
inline constexpr int kByteTileRows = 1;

using B = std::byte;
inline B b_load(const std::byte* p) { return *p; }
inline B b_part(const std::byte* row, std::size_t i, std::size_t, std::size_t) {
  return row[i];
}
using I = std::int32_t;
inline I i_zero() { return 0; }
template <int R>
inline void i_fold(const I (&s)[R], std::int32_t* out) {
  for (int r = 0; r < R; ++r) out[r] = s[r];
}

struct NoShared {
  void add(B) {}
  I finish(I s) const { return s; }
};

struct I8 {
  static std::int32_t value(B b) { return static_cast<std::int8_t>(b); }
};
struct U8 {
  static std::int32_t value(B b) { return static_cast<std::uint8_t>(b); }
};
template <class T>
struct ByteTerm {
  using Query = std::int32_t;
  using Row = std::int32_t;
  using Shared = NoShared;
  static Query query(B b) { return T::value(b); }
  static Row row(B b) { return T::value(b); }
};
template <class T>
struct ByteL2 : ByteTerm<T> {
  static I add(std::int32_t q, std::int32_t x, I s) { return s + (q - x) * (q - x); }
};
template <class T>
struct ByteDot : ByteTerm<T> {
  static I add(std::int32_t q, std::int32_t x, I s) { return s + q * x; }
};
template <class T>
struct ByteL1 : ByteTerm<T> {
  static I add(std::int32_t q, std::int32_t x, I s) {
    return s + (q < x ? x - q : q - x);
  }
};

// --- bits ----------------------------------------------------------------------------

// Bits set in a word, by sums of neighbours: the processor may have no instruction.
inline std::uint32_t count_bits(std::uint64_t w) {
  w -= (w >> 1) & 0x5555555555555555u;
  w = (w & 0x3333333333333333u) + ((w >> 2) & 0x3333333333333333u);
  w = (w + (w >> 4)) & 0x0F0F0F0F0F0F0F0Fu;
  return static_cast<std::uint32_t>((w * 0x0101010101010101u) >> 56);
}

ANNX_INLINE std::uint64_t word_at(const std::byte* p) { return read<std::uint64_t>(p); }
ANNX_INLINE std::uint32_t word_bits(std::uint64_t w) { return count_bits(w); }

// Calls f(a word, b word) for whole words, then for the last bytes widened with zeros.
template <class F>
ANNX_INLINE void for_words(const std::byte* a, const std::byte* b, std::size_t bytes,
                           F f) {
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8)
    f(read<std::uint64_t>(a + i), read<std::uint64_t>(b + i));
  if (i < bytes) {
    std::uint64_t x = 0;
    std::uint64_t y = 0;
    for (std::size_t shift = 0; i < bytes; ++i, shift += 8) {
      x |= static_cast<std::uint64_t>(a[i]) << shift;
      y |= static_cast<std::uint64_t>(b[i]) << shift;
    }
    f(x, y);
  }
}
inline std::uint32_t bits_xor(const std::byte* a, const std::byte* b,
                              std::size_t bytes) {
  std::uint32_t n = 0;
  for_words(a, b, bytes,
            [&](std::uint64_t x, std::uint64_t y) { n += count_bits(x ^ y); });
  return n;
}
inline void bits_and_or(const std::byte* a, const std::byte* b, std::size_t bytes,
                        std::uint32_t* both, std::uint32_t* any) {
  for_words(a, b, bytes, [&](std::uint64_t x, std::uint64_t y) {
    *both += count_bits(x & y);
    *any += count_bits(x | y);
  });
}

// The reference waits for memory: no prefetch that is the same on every compiler.
inline void prefetch(const void*) {}

}  // namespace
}  // namespace annx::kernels::scalar

// --- tiles: registers of float32 and what tile.inc.h does with them -----------------
namespace annx::kernels::scalar {
namespace {

inline constexpr std::size_t kTileLanes = 4;
inline constexpr std::size_t kTileQueries = 2;
inline constexpr std::size_t kTileRegs = 1;

ANNX_INLINE V v_splat(float x) {
  return v_map([&](int) { return x; });
}

struct Lanes {
  float v[4];
};
using LessMask = std::uint32_t;
ANNX_INLINE Lanes lanes_set(float x) { return {{x, x, x, x}}; }
ANNX_INLINE Lanes lanes_load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
ANNX_INLINE void lanes_store(float* p, Lanes a) {
  for (int i = 0; i < 4; ++i) p[i] = a.v[i];
}
ANNX_INLINE Lanes lanes_fma(Lanes a, Lanes b, Lanes c) {
  for (int i = 0; i < 4; ++i) c.v[i] = ANNX_FMAF(a.v[i], b.v[i], c.v[i]);
  return c;
}
ANNX_INLINE LessMask lanes_less(Lanes a, Lanes b) {
  LessMask m = 0;
  for (int i = 0; i < 4; ++i) m |= static_cast<LessMask>(a.v[i] < b.v[i]) << i;
  return m;
}
ANNX_INLINE LessMask less_none() { return 0; }
ANNX_INLINE LessMask less_or(LessMask a, LessMask b) { return a | b; }
ANNX_INLINE std::uint32_t less_bits(LessMask m) { return m; }
ANNX_INLINE Lanes less_pick(LessMask m, Lanes yes, Lanes no) {
  for (int i = 0; i < 4; ++i) {
    if ((m >> i) & 1u) no.v[i] = yes.v[i];
  }
  return no;
}
ANNX_INLINE Lanes lanes_add(Lanes a, Lanes b) {
  for (int i = 0; i < 4; ++i) a.v[i] += b.v[i];
  return a;
}
ANNX_INLINE Lanes lanes_sub(Lanes a, Lanes b) {
  for (int i = 0; i < 4; ++i) a.v[i] -= b.v[i];
  return a;
}
ANNX_INLINE Lanes lanes_min(Lanes a, Lanes b) {
  for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
ANNX_INLINE Lanes lanes_max(Lanes a, Lanes b) {
  for (int i = 0; i < 4; ++i) a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
// The bits of a where `keep` has them, and those of b.
ANNX_INLINE Lanes lanes_tag(Lanes a, Lanes keep, Lanes b) {
  for (int i = 0; i < 4; ++i) {
    std::uint32_t x, y, z;
    ANNX_MEMCPY(&x, a.v + i, 4);
    ANNX_MEMCPY(&y, keep.v + i, 4);
    ANNX_MEMCPY(&z, b.v + i, 4);
    x = (x & y) | z;
    ANNX_MEMCPY(a.v + i, &x, 4);
  }
  return a;
}
// The first n < 4 numbers from p on, the other lanes 0.
ANNX_INLINE Lanes lanes_part(const float* p, std::size_t n) {
  Lanes x = {};
  for (std::size_t i = 0; i < n; ++i) x.v[i] = p[i];
  return x;
}
// Rows become columns.
ANNX_INLINE void lanes_turn(Lanes (&x)[kTileLanes]) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      const float held = x[i].v[j];
      x[i].v[j] = x[j].v[i];
      x[j].v[i] = held;
    }
  }
}

}  // namespace
}  // namespace annx::kernels::scalar

// --- codes of links ------------------------------------------------------------------
namespace annx::kernels::scalar {
namespace {

// Lanes i and i ^ h exchanged, h a power of two below kTileLanes.
inline Lanes lanes_partner(const Lanes& a, std::size_t h) {
  Lanes out = a;
  for (std::size_t i = 0; i < kTileLanes; ++i) out.v[i] = a.v[i ^ h];
  return out;
}

// sums[i] = sum over parts p of tables[p * 16 + code of link i in part p].
inline void link_sums(const std::uint8_t* codes, std::size_t parts,
                      const std::uint8_t* tables, const LinkAhead&,
                      std::int32_t* sums) {
  for (std::size_t i = 0; i < kLinkGroup; ++i) sums[i] = 0;
  for (std::size_t p = 0; p < parts; ++p) {
    for (std::size_t i = 0; i < kLinkGroup; ++i) {
      sums[i] +=
          tables[p * 16 + (codes[link_code_at(p, i)] >> link_code_shift(p) & 15)];
    }
  }
}

// sums[i] = sum over parts p of tables[p * 16 + code of row i in part p], for a block
// of kPieceGroup rows.
inline void piece_sums(const std::uint8_t* codes, std::size_t parts,
                       const std::uint8_t* tables, std::int32_t* sums) {
  for (std::size_t i = 0; i < kPieceGroup; ++i) sums[i] = 0;
  for (std::size_t p = 0; p < parts; p += 2) {
    const std::uint8_t* table = tables + p * 16;
    for (std::size_t i = 0; i < kPieceGroup; ++i) {
      const unsigned code = codes[p * 16 + i];
      sums[i] += table[code & 15] + table[16 + (code >> 4)];
    }
  }
}
// The same for two groups, `stride` bytes apart.
inline void piece_sums_pair(const std::uint8_t* codes, std::size_t stride,
                            std::size_t parts, const std::uint8_t* tables,
                            std::int32_t* sums, std::size_t /*ahead*/) {
  piece_sums(codes, parts, tables, sums);
  piece_sums(codes + stride, parts, tables, sums + kPieceGroup);
}

}  // namespace
}  // namespace annx::kernels::scalar
