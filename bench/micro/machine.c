// SPDX-License-Identifier: Apache-2.0
// What the machine can do: the loops that the kernels are measured against. Each does
// the least work that still needs every byte (or every multiplier), so that memory, or
// the multipliers, set the time. Built by run.py with the system's compiler.
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4)));
#define STEP (LANES * 4)

// Reads `bytes` bytes from `data` on, `ahead` bytes prefetched (0: left to the hardware).
int32_t read_all(const char* data, size_t bytes, size_t ahead) {
  Ints s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
  size_t i = 0;
  for (; i + 4 * STEP <= bytes; i += 4 * STEP) {
    if (ahead) {
      for (int j = 0; j < 4 * STEP; j += 64) __builtin_prefetch(data + i + ahead + j);
    }
    s0 ^= *(const Ints*)(data + i);
    s1 ^= *(const Ints*)(data + i + STEP);
    s2 ^= *(const Ints*)(data + i + 2 * STEP);
    s3 ^= *(const Ints*)(data + i + 3 * STEP);
  }
  s0 ^= s1 ^ s2 ^ s3;
  return s0[0] ^ s0[1];
}

// Reads four quarters of `bytes` bytes abreast: hardware prefetches within a page, and
// several streams hide each other's starts of pages.
int32_t read_quarters(const char* data, size_t bytes) {
  const size_t part = bytes / 4 / (2 * STEP) * (2 * STEP);
  Ints s[4] = {{0}};
  for (size_t i = 0; i < part; i += 2 * STEP) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const char* at = data + j * part + i;
      s[j] ^= *(const Ints*)at ^ *(const Ints*)(at + STEP);
    }
  }
  s[0] ^= s[1] ^ s[2] ^ s[3];
  return s[0][0] ^ s[0][1];
}

// Reads `count` rows of `bytes` bytes, `ahead` rows of the list prefetched.
int32_t read_rows(const char* data, size_t stride, const uint32_t* slots, size_t count,
                  size_t bytes, size_t ahead) {
  Ints s0 = {0}, s1 = {0};
  for (size_t i = 0; i < count; ++i) {
    if (ahead && i + ahead < count) {
      const char* next = data + (size_t)slots[i + ahead] * stride;
      for (size_t j = 0; j < bytes; j += 64) __builtin_prefetch(next + j);
      __builtin_prefetch(next + bytes - 1);
    }
    const char* row = data + (size_t)slots[i] * stride;
    size_t j = 0;
    for (; j + 2 * STEP <= bytes; j += 2 * STEP) {
      s0 ^= *(const Ints*)(row + j);
      s1 ^= *(const Ints*)(row + j + STEP);
    }
    for (; j < bytes; j += 4) s0[0] ^= *(const int32_t*)(row + j);
  }
  s0 ^= s1;
  return s0[0] ^ s0[1];
}

// 2 * 12 * LANES floating-point operations a round.
float multiply_add(size_t rounds, float x) {
  Vec s[12], a, b;
  // Unrolled throughout: an index that is not a constant would keep s in memory.
#pragma GCC unroll 12
  for (int j = 0; j < 12; ++j) s[j] = (Vec){0} + x * (float)j;
  a = (Vec){0} + x;
  b = (Vec){0} + 1.0f / (1.0f + x);
  for (size_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < 12; ++j) s[j] = s[j] * b + a;
    __asm__ volatile("" : "+m"(x));
  }
#pragma GCC unroll 12
  for (int j = 1; j < 12; ++j) s[0] += s[j];
  return s[0][0];
}
