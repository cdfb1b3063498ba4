// SPDX-License-Identifier: Apache-2.0
// The kernels for neon.
#include <cstddef>
#include <cstdint>

#include "annx/kernels/builtin.h"
#include "annx/kernels/table.h"
#include "annx/kernels/simd_neon.h"

#define ANNX_ISA_NS neon
#define ANNX_ISA_NAME "neon"
#include "annx/kernels/kernels.inc.h"
