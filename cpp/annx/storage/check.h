// SPDX-License-Identifier: Apache-2.0
// The one check of values that enter an index or a search: NaN, infinity, a squared
// norm beyond float32, and stray bits after the last of a bit row are refused. One pass
// at the speed of memory.
#pragma once

#include <cstddef>
#include <string_view>

#include "annx/base/matrix_view.h"
#include "annx/base/types.h"

namespace annx::storage {

// Throws InvalidArgument that names `argument` and the first bad row. 8-bit rows are
// always good. Thread-safe.
void check_rows(DType dtype, RowsView rows, std::size_t dim, std::string_view argument);

// The same and, for Metric::kPoincare, that rows (of floats) lie within the unit ball.
void check_rows(Metric metric, DType dtype, RowsView rows, std::size_t dim,
                std::string_view argument);

}  // namespace annx::storage
