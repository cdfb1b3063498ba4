// SPDX-License-Identifier: Apache-2.0
// The kernels for scalar.
#include <cstddef>
#include <cstdint>

#include "annx/kernels/builtin.h"
#include "annx/kernels/table.h"
#include "annx/kernels/simd_scalar.h"

#define ANNX_ISA_NS scalar
#define ANNX_ISA_NAME "scalar"
#include "annx/kernels/kernels.inc.h"
