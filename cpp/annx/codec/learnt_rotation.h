// SPDX-License-Identifier: Apache-2.0
// A rotation under which product codes of rows leave less (Ge, He, Ke and Sun,
// "Optimized product quantization", 2013, the non-parametric way). With a rotation R
// and the codes' z^ for each z = R x, sum |R x - z^|^2 is lowered in turn by
//   codebooks   one step of k-means on every piece, from where they were, and
//   R           Procrustes' problem: the rotation nearest to M = sum z^ x^T.
// The start is the principal axes, each in its turn given to the piece with the least
// product of variances so far (the paper's parametric way). The nearest rotation is
// found by Newton and Schulz's iteration X <- (3 X - X X^T X) / 2, of matrix products
// alone, and of M + share R in place of M: that lowers the sum too (what it maximises,
// <R', M> + share <R', R>, is at least as much as for R itself), and keeps M's weak
// directions, which rows hardly have, from being drawn at random or not at all.
//
// O(n d^2 + d^3) a round, and to start.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "annx/base/matrix_view.h"
#include "annx/base/parallel.h"

namespace annx::codec {

// [dim][dim], orthonormal rows: z = R x. The pieces are of widths[p] dimensions with
// `levels` centroids each; there are at least as many rows. The result does not depend
// on the number of threads.
std::vector<float> learn_rotation(MatrixView<float> rows,
                                  const std::vector<std::uint8_t>& widths,
                                  std::size_t levels, std::uint64_t seed,
                                  std::size_t threads, Monitor* monitor);

}  // namespace annx::codec
