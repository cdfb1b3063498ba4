// SPDX-License-Identifier: Apache-2.0
// The kernels for avx2.
#include <cstddef>
#include <cstdint>

#include "annx/kernels/builtin.h"
#include "annx/kernels/table.h"
#include "annx/kernels/simd_avx2.h"

#define ANNX_ISA_NS avx2
#define ANNX_ISA_NAME "avx2"
// clang-format off
#include "annx/kernels/simd_256.h"
#include "annx/kernels/kernels.inc.h"
// clang-format on
