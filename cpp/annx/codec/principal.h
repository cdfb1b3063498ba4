// SPDX-License-Identifier: Apache-2.0
// Principal axes of a set of rows (Pearson, 1901): the eigenvectors of X^T X / n, by
// Jacobi's rotations (1846), which are short to write and exact enough for any use.
// Cost: O(n d^2) for the matrix, O(d^3) for the axes: for some hundred dimensions.
#pragma once

#include <cstddef>
#include <vector>

#include "annx/base/matrix_view.h"

namespace annx::codec {

struct PrincipalAxes {
  std::vector<float> axes;        // [dim][dim], orthonormal rows
  std::vector<double> variances;  // falling, not negative
};

// Of the rows as they are (not centred). The result does not depend on the number of
// threads.
PrincipalAxes principal_axes(MatrixView<float> rows, std::size_t threads);

}  // namespace annx::codec
