// SPDX-License-Identifier: Apache-2.0
// The kernels for scalar.
#include <cstddef>
#include <cstdint>

#define ANNX_ISA_NS scalar
#define ANNX_ISA_NAME "scalar"
#include "annx/kernels/table.h"
#include "annx/kernels/builtin.inc.h"
#include "annx/kernels/simd_scalar.h"
#include "annx/kernels/distance.inc.h"
#include "annx/kernels/bytes.inc.h"
#include "annx/kernels/bits.inc.h"
#include "annx/kernels/convert.inc.h"
#include "annx/kernels/table.inc.h"
