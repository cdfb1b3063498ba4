// SPDX-License-Identifier: Apache-2.0
// Connected components under a radius: rows joined wherever their distance is at most
// that. Every pair of rows meets once, in register tiles where they serve (tiles.h) and
// by canonical distances otherwise; pairs already known to be joined are not settled.
// Sets are joined by rank of their lowest row (Tarjan, 1975), so no edge is ever kept.
//
// O(count^2 dim / 2) time; memory beside the rows: 8 bytes a row, 64 MiB of packed
// queries, and for each thread 2 MiB of packed rows and 1 MiB of pairs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "annx/base/parallel.h"
#include "annx/search/canonical.h"

namespace annx::search {

// labels[i], set.count of them: components numbered in the order of their first rows.
// Returns how many there are. The radius is compared as a float32 where distances are
// not integers. The result does not depend on `threads`. `set` has no ids.
std::size_t connected_components(const RowSet& set, double radius, std::size_t threads,
                                 Monitor* monitor, std::int64_t* labels);

}  // namespace annx::search
