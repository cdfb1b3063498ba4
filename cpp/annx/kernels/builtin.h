// SPDX-License-Identifier: Apache-2.0
// The few compiler built-ins that kernels need, by one name on every compiler. Kernels
// include no library header beyond <cstddef> and <cstdint>: an inline function of the
// library, compiled here with this unit's instruction set and merged by the linker with
// the same function of another unit, would crash older machines.
#pragma once

#if defined(__clang__)
#define ANNX_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define ANNX_UNROLL _Pragma("GCC unroll 16")
#else
#define ANNX_UNROLL
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define ANNX_INLINE __forceinline
#define ANNX_NOINLINE __declspec(noinline)
extern "C" void* __cdecl memcpy(void*, const void*, std::size_t);
extern "C" float __cdecl fmaf(float, float, float);
extern "C" float __cdecl sqrtf(float);
#define ANNX_MEMCPY memcpy
#define ANNX_FMAF fmaf
#define ANNX_SQRTF sqrtf
#define ANNX_FABSF(x) \
  __builtin_bit_cast(float, __builtin_bit_cast(unsigned, x) & 0x7FFFFFFFu)
#else
#define ANNX_INLINE inline __attribute__((always_inline))
#define ANNX_NOINLINE __attribute__((noinline))
#define ANNX_MEMCPY __builtin_memcpy
#define ANNX_FMAF __builtin_fmaf
#define ANNX_SQRTF __builtin_sqrtf
#define ANNX_FABSF __builtin_fabsf
#endif
