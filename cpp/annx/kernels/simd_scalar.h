// SPDX-License-Identifier: Apache-2.0
// The primitive operations in plain C++: what the others must agree with, bit for bit.
// Included by isa_scalar.cpp alone.
#pragma once

namespace annx::kernels::scalar {

// 32 float lanes.
struct F32 {
  float v[32];
};

inline F32 f32_zero() { return {}; }

inline float half_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  std::uint32_t exponent = (h >> 10) & 31u;
  std::uint32_t mantissa = h & 1023u;
  std::uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7F800000u | (mantissa << 13);
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

inline float bfloat_to_float(std::uint16_t b) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(b) << 16);
}

struct LoadF32 {
  static constexpr std::size_t kBytes = 4;
  static float at(const std::byte* p) {
    float x;
    __builtin_memcpy(&x, p, 4);
    return x;
  }
};
struct LoadF16 {
  static constexpr std::size_t kBytes = 2;
  static float at(const std::byte* p) {
    std::uint16_t x;
    __builtin_memcpy(&x, p, 2);
    return half_to_float(x);
  }
};
struct LoadBF16 {
  static constexpr std::size_t kBytes = 2;
  static float at(const std::byte* p) {
    std::uint16_t x;
    __builtin_memcpy(&x, p, 2);
    return bfloat_to_float(x);
  }
};

template <class L>
inline F32 f32_load(const std::byte* p) {
  F32 r;
  for (std::size_t i = 0; i < 32; ++i) r.v[i] = L::at(p + i * L::kBytes);
  return r;
}
// The first n < 32 elements; the other lanes are zero.
template <class L>
inline F32 f32_load_n(const std::byte* p, std::size_t n) {
  F32 r = f32_zero();
  for (std::size_t i = 0; i < n; ++i) r.v[i] = L::at(p + i * L::kBytes);
  return r;
}
inline F32 f32_sub(F32 a, F32 b) {
  F32 r;
  for (std::size_t i = 0; i < 32; ++i) r.v[i] = a.v[i] - b.v[i];
  return r;
}
inline F32 f32_abs(F32 a) {
  F32 r;
  for (std::size_t i = 0; i < 32; ++i) r.v[i] = __builtin_fabsf(a.v[i]);
  return r;
}
inline F32 f32_add(F32 a, F32 b) {
  F32 r;
  for (std::size_t i = 0; i < 32; ++i) r.v[i] = a.v[i] + b.v[i];
  return r;
}
inline F32 f32_fma(F32 a, F32 b, F32 c) {
  F32 r;
  for (std::size_t i = 0; i < 32; ++i) r.v[i] = __builtin_fmaf(a.v[i], b.v[i], c.v[i]);
  return r;
}
inline float f32_fold(F32 a) {
  float s8[8];
  for (std::size_t j = 0; j < 8; ++j) {
    s8[j] = (a.v[j] + a.v[j + 8]) + (a.v[j + 16] + a.v[j + 24]);
  }
  float s4[4];
  for (std::size_t j = 0; j < 4; ++j) s4[j] = s8[j] + s8[j + 4];
  return (s4[0] + s4[2]) + (s4[1] + s4[3]);
}

// Sums of 8-bit terms in int32, 32 elements a step.
struct I32 {
  std::int32_t v;
};
struct LoadI8 {
  static std::int32_t at(const std::byte* p) { return static_cast<std::int8_t>(*p); }
};
struct LoadU8 {
  static std::int32_t at(const std::byte* p) { return static_cast<std::uint8_t>(*p); }
};
inline I32 i32_zero() { return {0}; }
inline std::int32_t i32_fold(I32 a) { return a.v; }

template <class L>
inline I32 i32_l2(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t d = L::at(a + i) - L::at(b + i);
    s.v += d * d;
  }
  return s;
}
template <class L>
inline I32 i32_dot(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  for (std::size_t i = 0; i < n; ++i) s.v += L::at(a + i) * L::at(b + i);
  return s;
}
template <class L>
inline I32 i32_l1(const std::byte* a, const std::byte* b, std::size_t n, I32 s) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::int32_t d = L::at(a + i) - L::at(b + i);
    s.v += d < 0 ? -d : d;
  }
  return s;
}

inline void prefetch(const void*) {}

}  // namespace annx::kernels::scalar
