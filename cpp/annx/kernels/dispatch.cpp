// SPDX-License-Identifier: Apache-2.0
#include "annx/kernels/dispatch.h"

#include <cstdlib>

#include "annx/base/error.h"

#if defined(__x86_64__) || defined(_M_X64)
#define ANNX_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace annx::kernels {

namespace scalar {
const KernelTable& table();
}
#if defined(ANNX_HAVE_ISA_AVX2)
namespace avx2 {
const KernelTable& table();
}
#endif
#if defined(ANNX_HAVE_ISA_AVX512)
namespace avx512 {
const KernelTable& table();
}
#endif
#if defined(ANNX_HAVE_ISA_NEON)
namespace neon {
const KernelTable& table();
}
#endif

namespace {

#if defined(ANNX_X86)

struct CpuidWords {
  unsigned a = 0, b = 0, c = 0, d = 0;
};

CpuidWords cpuid(unsigned leaf, unsigned subleaf) {
  CpuidWords r;
#if defined(_MSC_VER)
  int words[4];
  __cpuid(words, 0);
  if (static_cast<unsigned>(words[0]) < leaf) return r;
  __cpuidex(words, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {static_cast<unsigned>(words[0]), static_cast<unsigned>(words[1]),
       static_cast<unsigned>(words[2]), static_cast<unsigned>(words[3])};
#else
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);
#endif
  return r;
}

// XCR0: which register states the operating system saves. Only valid with OSXSAVE.
unsigned long long xcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

constexpr bool has(unsigned word, int bit) { return ((word >> bit) & 1u) != 0; }

// Each gate tests every feature that the unit's compiler flags allow it to use.
struct X86Features {
  bool avx2 = false;
  bool avx512 = false;

  X86Features() {
    const CpuidWords one = cpuid(1, 0);
    const CpuidWords seven = cpuid(7, 0);
    if (!has(one.c, 27)) return;  // OSXSAVE
    const unsigned long long state = xcr0();
    if ((state & 0x6u) != 0x6u) return;  // XMM and YMM
    avx2 = has(one.c, 28) && has(one.c, 12) && has(one.c, 29) && has(one.c, 23) &&
           has(seven.b, 5);                       // AVX, FMA, F16C, POPCNT, AVX2
    avx512 = avx2 && (state & 0xE0u) == 0xE0u &&  // opmask and both halves of ZMM
             has(seven.b, 16) && has(seven.b, 17) && has(seven.b, 30) &&
             has(seven.b, 31) &&                    // F, DQ, BW, VL
             has(seven.c, 11) && has(seven.c, 14);  // VNNI, VPOPCNTDQ
#if defined(ANNX_AVX512_PORTABLE)
    avx512 = avx2;  // the tests' build, whose AVX-512 kernels are made of AVX2
#endif
  }
};

const X86Features& x86() {
  static const X86Features features;
  return features;
}

#endif

struct Entry {
  const char* name;
  bool supported;
  const KernelTable& (*table)();
};

std::vector<Entry> entries() {
  std::vector<Entry> all = {{"scalar", true, &scalar::table}};
#if defined(ANNX_HAVE_ISA_AVX2)
  all.push_back({"avx2", x86().avx2, &avx2::table});
#endif
#if defined(ANNX_HAVE_ISA_AVX512)
  all.push_back({"avx512", x86().avx512, &avx512::table});
#endif
#if defined(ANNX_HAVE_ISA_NEON)
  all.push_back({"neon", true, &neon::table});
#endif
  return all;
}

const KernelTable& choose() {
  if (const char* forced = std::getenv("ANNX_ISA"); forced != nullptr && *forced != 0) {
    return table_for(forced);
  }
  const KernelTable* best = nullptr;
  for (const Entry& entry : entries()) {
    if (entry.supported) best = &entry.table();
  }
  return *best;
}

}  // namespace

const KernelTable& active() {
  static const KernelTable& chosen = choose();
  return chosen;
}

std::vector<IsaInfo> compiled_isas() {
  std::vector<IsaInfo> infos;
  for (const Entry& entry : entries()) infos.push_back({entry.name, entry.supported});
  return infos;
}

const KernelTable& table_for(std::string_view name) {
  std::string known;
  for (const Entry& entry : entries()) {
    if (name == entry.name) {
      if (!entry.supported) {
        throw InvalidArgument("ANNX_ISA is '" + std::string(name) +
                              "', which this processor does not support");
      }
      return entry.table();
    }
    known += (known.empty() ? "'" : ", '") + std::string(entry.name) + "'";
  }
  throw InvalidArgument("ANNX_ISA is '" + std::string(name) + "'; compiled here are " +
                        known);
}

}  // namespace annx::kernels
