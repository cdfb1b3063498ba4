// SPDX-License-Identifier: Apache-2.0
// Every loop, in the order in which one uses the other, then the table. Included by
// isa_*.cpp after its primitives, with ANNX_ISA_NS set to the instruction set's
// namespace and ANNX_ISA_NAME to its name.

// clang-format off
#include "annx/kernels/distance.inc.h"
#include "annx/kernels/bytes.inc.h"
#include "annx/kernels/bits.inc.h"
#include "annx/kernels/convert.inc.h"
#include "annx/kernels/tile.inc.h"
#include "annx/kernels/assign.inc.h"
#include "annx/kernels/links.inc.h"
#include "annx/kernels/nearest.inc.h"
#include "annx/kernels/scan.inc.h"
#include "annx/kernels/meet.inc.h"
#include "annx/kernels/boxes.inc.h"
#include "annx/kernels/table.inc.h"
// clang-format on
