// SPDX-License-Identifier: Apache-2.0
// The kernels for avx512.
#include <cstddef>
#include <cstdint>

#include "annx/kernels/builtin.h"
#include "annx/kernels/table.h"
#include "annx/kernels/simd_avx512.h"

#define ANNX_ISA_NS avx512
#define ANNX_ISA_NAME "avx512"
// clang-format off
#include "annx/kernels/simd_256.h"
#include "annx/kernels/kernels.inc.h"
// clang-format on
