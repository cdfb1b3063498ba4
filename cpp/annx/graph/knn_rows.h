// SPDX-License-Identifier: Apache-2.0
// All-pairs search of rows of any type under any metric: ids and canonical distances.
//
// l2 and cosine over vectors go through build_knn, whose answers are settled by the
// canonical kernel. Exact answers are checked: what build_knn left out is known to be
// at least as far as the last that it kept, so where the k-th settled distance comes
// near that, the row is searched for by itself (duplicates, mostly). Other metrics, few
// rows and numbers too large for tiles are searched for row by row, always exactly, by
// search_topk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "annx/base/parallel.h"
#include "annx/search/canonical.h"

namespace annx::graph {

// `ids` and `distances` are set.count x k: the k nearest other rows of each, nearest
// first, ties by number, padded with -1 and +inf. `set` holds all its rows (no slots,
// no ids). recall in (0, 1]: 1 is exact. Returns the share of the edges that is there,
// as estimated from a sample; 1 where exact. The result does not depend on `threads`.
double knn_rows(const search::RowSet& set, std::size_t k, double recall,
                std::uint64_t seed, std::size_t threads, Monitor* monitor,
                std::int64_t* ids, float* distances);

}  // namespace annx::graph
